"""Bringing the gateway up on Ray, waiting until it is ready, and taking it down again.

The composition root: everything else is put together here. Import it only inside `fast_path`,
because Ray reads its environment when it is imported.
"""

from __future__ import annotations

import logging
import shutil
import socket
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event

import httpx
import ray
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import ApplicationStatus, LoggingConfig

from deployments.activation import APPLICATION_PREFIX
from deployments.application import APPLICATION, gateway_application
from deployments.fast_path import haproxy_admin_socket, inner_host
from deployments.front_door import close_front_door
from deployments.logs import LogOptions
from deployments.registry_environment import registry_variables, set_registry_defaults
from deployments.settings import Settings

_logger = logging.getLogger(__name__)

_OBJECT_STORE_BYTES = 512 * 1024 * 1024
_POLL_S = 0.1
_KNOCK_S = 5.0
_LOADING_POLL_S = 0.5

# How soon after the catalog the models that are to be there from the start begin to.
_SETTLE_S = 3.0
_STARTING = (ApplicationStatus.NOT_STARTED, ApplicationStatus.DEPLOYING)
_MINUTES_TO_END = 5

# Above what any setting or tag allows: deadlines are ours to keep, and to answer in our envelope.
_LONGEST_REQUEST_S = 3660.0

# Serve's own chatter is for Ray's developers; what a user should know, our loggers say.
_QUIET = LoggingConfig(log_level="WARNING", enable_access_log=False)


class RayUnreachable(Exception):
    """The Ray cluster to join isn't there; the sentence is meant for people."""


@contextmanager
def ray_runtime(settings: Settings) -> Iterator[None]:
    """Start a local Ray (or join the one at `ray_address`), and leave it as it was found.

    Raises RayUnreachable.
    """
    set_registry_defaults()
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    if settings.ray_address is None:
        ray.init(
            address="local",
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            logging_level=logging.ERROR,
            # What others write is not JSON; Ray keeps it in its files.
            log_to_driver=settings.log_format != "json",
        )
    else:
        _join(settings.ray_address)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def joined_ray(address: str) -> Iterator[None]:
    """Be connected to the Ray cluster at `address`; raises RayUnreachable."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    _join(address)
    try:
        yield
    finally:
        ray.shutdown()


def _join(address: str) -> None:
    try:
        _knock(address)
        ray.init(address=address, logging_level=logging.ERROR)
    except (OSError, ValueError) as error:
        # Given an address, Ray uses a token only where it is told to (ray/_private/worker.py).
        raise RayUnreachable(
            f"no Ray cluster answers at {address}; where it asks for a token, set "
            "RAY_AUTH_MODE=token"
        ) from error


def _knock(address: str) -> None:
    """Find out at once that nobody listens at `host:port`: Ray would go on trying for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()


@contextmanager
def deployed(settings: Settings, logs: LogOptions) -> Iterator[None]:
    """Deploy the gateway's application; on the way out drain it and delete what is ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        serve.start(
            http_options=HTTPOptions(
                host=settings.host if settings.ray_address else inner_host(settings.host),
                port=settings.port,
                request_timeout_s=_LONGEST_REQUEST_S,
            ),
            logging_config=_QUIET,
        )
    if settings.ray_address is None:
        # Whoever starts the gateway anew may have mended what kept versions from loading.
        shutil.rmtree(settings.record_dir, ignore_errors=True)
    try:
        serve.run_many([_gateway(settings, logs)], wait_for_applications_running=False)
        yield
    finally:
        if settings.ray_address is None:
            _take_down_serve(settings)
        else:
            _take_down_shared()


def _take_down_serve(settings: Settings) -> None:
    """Serve itself is ours: answer what was accepted, then let it go as a whole."""
    admin_socket = haproxy_admin_socket()
    if admin_socket is not None:
        close_front_door(admin_socket, timeout_s=settings.request_timeout_s)
    else:
        serve.delete(APPLICATION)
    serve.shutdown()  # type: ignore[no-untyped-call]


def _take_down_shared() -> None:
    left = take_down_ours().left
    if left:
        _logger.warning("still ending: %s", ", ".join(left))


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenDown:
    """Names of applications of ours: those that are gone, and those that still go on ending."""

    gone: tuple[str, ...]
    left: tuple[str, ...]


def take_down_ours() -> TakenDown:
    """Serve is shared: delete the ingress first, so that what was accepted is answered, then the
    models."""
    ours = [name for name in serve.status().applications if name == APPLICATION]
    ended = {name: _delete(name) for name in ours}
    # Asked only now: until here its sync service may have made some.
    models = [name for name in serve.status().applications if name.startswith(APPLICATION_PREFIX)]
    with ThreadPoolExecutor(max_workers=8) as deleting:
        ended |= zip(models, deleting.map(_delete, models), strict=True)
    return TakenDown(
        gone=tuple(name for name, is_gone in ended.items() if is_gone),
        left=tuple(name for name, is_gone in ended.items() if not is_gone),
    )


def _delete(name: str) -> bool:
    """Whether the application is gone; Serve itself waits a minute, and an ingress that has to
    answer may take longer."""
    for _ in range(_MINUTES_TO_END):
        try:
            serve.delete(name)
        except TimeoutError:
            continue
        return True
    return False


def wait_until_ready(settings: Settings, *, stop: Event) -> Iterator[str]:
    """Yield what keeps the gateway from being ready, each thing once; ends when it is ready, or
    when `stop` is set."""
    said: set[str] = set()
    with httpx.Client(base_url=settings.url, timeout=5.0) as client:
        while not stop.is_set():
            problem = _readiness_problem(client)
            if problem is None:
                return
            if problem and problem not in said:
                said.add(problem)
                yield problem
            stop.wait(_POLL_S)


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


def models_loading(*, stop: Event) -> Iterator[tuple[int, int]]:
    """How many models run, of those that have an application, for as long as some are starting."""
    settled_at = time.monotonic() + _SETTLE_S
    while not stop.is_set():
        ours = [
            application.status
            for name, application in serve.status().applications.items()
            if name.startswith(APPLICATION_PREFIX)
        ]
        starting = sum(state in _STARTING for state in ours)
        if starting:
            yield len(ours) - starting, len(ours)
        elif time.monotonic() > settled_at:
            return
        stop.wait(_LOADING_POLL_S)


def _gateway(settings: Settings, logs: LogOptions) -> serve.RunTarget:
    environment = registry_variables() if settings.ray_address is not None else {}
    return serve.RunTarget(
        target=gateway_application(settings, logs, environment=environment),
        name=APPLICATION,
        route_prefix="/",
        logging_config=_QUIET,
    )
