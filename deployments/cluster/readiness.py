"""Starting what may be slow to start, and waiting until a gateway that was deployed is ready, or
can't become so. Must not import ray."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import TypeVar

import httpx

from deployments.settings import Settings

_logger = logging.getLogger(__name__)

_Started = TypeVar("_Started")

_POLL_S = 0.1
# Where it waits for a registry, which may be away for hours.
_WAITING_POLL_S = 1.0
_ASK_SERVE_EVERY_S = 1.0

Failure = Callable[[], str | None]
"""Why Serve has given the gateway's application up, in one line; None where it hasn't."""


class GatewayFailed(Exception):
    """Serve can't start the gateway's processes; the sentence is meant for people."""


def started(
    what: str,
    start: Callable[[], _Started],
    *,
    failures: tuple[type[Exception], ...],
    undo: Callable[[], None],
) -> _Started:
    """What `start` gives, tried once more where a machine with much to do was too slow for it;
    raises GatewayFailed, in one line."""
    try:
        return start()
    except failures as error:
        _logger.warning("%s did not start, and is tried once more: %s", what, last_line(str(error)))
        undo()
    try:
        return start()
    except failures as error:
        raise GatewayFailed(f"{what} can't be started: {last_line(str(error))}") from error


def wait_until_ready(settings: Settings, *, stop: Event, failure: Failure) -> Iterator[str]:
    """Yield what keeps the gateway from being ready, each thing once; ends when it is ready, or
    when `stop` is set. Raises GatewayFailed where `failure` has something to tell."""
    said: set[str] = set()
    ask_at = time.monotonic() + _ASK_SERVE_EVERY_S
    with httpx.Client(base_url=settings.url, timeout=5.0) as client:
        while not stop.is_set():
            problem = _readiness_problem(client)
            if problem is None:
                return
            if problem and problem not in said:
                said.add(problem)
                yield problem
            if time.monotonic() >= ask_at:
                _require_no(failure)
                ask_at = time.monotonic() + _ASK_SERVE_EVERY_S
            stop.wait(_WAITING_POLL_S if problem else _POLL_S)


def _require_no(failure: Failure) -> None:
    reason = failure()
    if reason is not None:
        raise GatewayFailed(f"the gateway's processes can't be started: {reason}")


def _readiness_problem(client: httpx.Client) -> str | None:
    """None when ready; "" while starting; else the registry's problem."""
    try:
        response = client.get("/readyz")
    except httpx.HTTPError:
        return ""
    if response.status_code == httpx.codes.OK:
        return None
    if not response.headers.get("content-type", "").startswith("application/problem+json"):
        return ""
    return str(response.json().get("registry_problem") or "")


def last_line(message: str) -> str:
    """What Serve tells of a failure, in one line: the last of a traceback is what was raised."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else ""
