"""A small steady load on a gateway, each answer checked against what the named version must say.

N callers send one request after the other, at a pace, from a thread of their own, while a test does
harm. What counts afterwards: sent, failed, wrong, and the longest wait. Every request has a number
of its own in it, so an answer that was meant for somebody else is seen.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from tests.support.processes import poll

HUNG_AFTER_S = 75.0
"""Longer than any deadline of the gateway's in these tests."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What is asked of one model: `body(n)` goes to `version`, and `answer(n)` must come back."""

    model: str
    answer: Callable[[int], Any]
    body: Callable[[int], Any] = lambda n: {"x": n}
    version: int | None = None

    @property
    def path(self) -> str:
        return f"/models/{quote(self.model, safe='')}/predict"

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.version is None else {"X-Model-Version": str(self.version)}


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A request that was not answered well: when it ended, how long it took, what came."""

    at: float
    waited_s: float
    model: str
    what: str


@dataclass(kw_only=True)
class Figures:
    """What the callers have seen, since the load began or since `SteadyLoad.reset`."""

    sent: int = 0
    answered: int = 0
    longest_wait_s: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    hung: int = 0
    by_ask: Counter[tuple[str, int | None]] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        """How many requests were answered by an error, or not at all."""
        return len(self.failures)

    def __str__(self) -> str:
        kinds = Counter(failure.what for failure in self.failures)
        said = "".join(f"; {count} x {what}" for what, count in kinds.most_common(5))
        return (
            f"{self.sent} sent, {self.failed} failed, {len(self.wrong)} wrong, {self.hung} hung, "
            f"longest wait {self.longest_wait_s:.2f} s{said}"
        )


class SteadyLoad:
    """Callers of a gateway at work; use `steady_load`."""

    def __init__(
        self, url: str, asks: Sequence[Ask], *, callers: int, pause_s: float, is_paced: bool
    ) -> None:
        self._url = url
        self._asks = asks
        self._callers = callers
        self._pause_s = pause_s
        self._is_paced = is_paced
        self._numbers = itertools.count(1)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="steady load")
        self.figures = Figures()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> Figures:
        """Wait for what is on its way, and send no more."""
        self._stopping.set()
        self._thread.join()
        return self.figures

    def reset(self) -> Figures:
        """Count anew; what was counted so far. A request counts where it ends."""
        before, self.figures = self.figures, Figures()
        return before

    def wait_for_answers(self, count: int, *, timeout_s: float = 60.0) -> None:
        """Until so many more requests have been answered well, of each ask."""
        before = Counter(self.figures.by_ask)
        asked = {(ask.model, ask.version) for ask in self._asks}
        poll(
            lambda: all(self.figures.by_ask[each] - before[each] >= count for each in asked),
            timeout_s=timeout_s,
            what=f"{count} more good answers of each of {sorted(map(str, asked))}",
        )

    def _run(self) -> None:
        asyncio.run(self._call_all())

    async def _call_all(self) -> None:
        limits = httpx.Limits(max_connections=None)
        async with (
            httpx.AsyncClient(base_url=self._url, timeout=HUNG_AFTER_S, limits=limits) as client,
            asyncio.TaskGroup() as group,
        ):
            for number in range(self._callers):
                group.create_task(self._call(client, number))

    async def _call(self, client: httpx.AsyncClient, number: int) -> None:
        asks = itertools.cycle(self._asks)
        for _ in range(number % len(self._asks)):
            next(asks)
        due = time.monotonic()
        if self._is_paced:  # not all at the same moment
            due += self._pause_s * number / self._callers
            await asyncio.sleep(due - time.monotonic())
        while not self._stopping.is_set():
            await self._ask(client, next(asks))
            due = max(due, time.monotonic() - self._pause_s) if self._is_paced else time.monotonic()
            due += self._pause_s
            await asyncio.sleep(due - time.monotonic())

    async def _ask(self, client: httpx.AsyncClient, ask: Ask) -> None:
        n = next(self._numbers)
        began = time.monotonic()
        problem, wrong = None, None
        try:
            response = await client.post(ask.path, json=ask.body(n), headers=ask.headers)
        except httpx.TimeoutException:
            problem = "hung"
        except httpx.TransportError as error:
            problem = type(error).__name__
        else:
            problem, wrong = _judged(ask, n, response)
        self._count(ask, time.monotonic() - began, problem, wrong)

    def _count(self, ask: Ask, waited_s: float, problem: str | None, wrong: str | None) -> None:
        figures = self.figures
        figures.sent += 1
        figures.longest_wait_s = max(figures.longest_wait_s, waited_s)
        figures.hung += problem == "hung"
        if wrong is not None:
            figures.wrong.append(wrong)
        elif problem is not None:
            figures.failures.append(
                Failure(at=time.monotonic(), waited_s=waited_s, model=ask.model, what=problem)
            )
        else:
            figures.answered += 1
            figures.by_ask[ask.model, ask.version] += 1


def _judged(ask: Ask, n: int, response: httpx.Response) -> tuple[str | None, str | None]:
    """What failed, and what was wrong with an answer that claims to be good."""
    if response.status_code != httpx.codes.OK:
        return f"{response.status_code} {_code(response)}", None
    said, answered_by = response.json(), response.headers.get("X-Model-Version")
    if said != ask.answer(n) or (ask.version and answered_by != str(ask.version)):
        return None, f"{ask.model} version {answered_by} said {said} to {ask.body(n)}"
    return None, None


def _code(response: httpx.Response) -> str:
    if "json" not in response.headers.get("content-type", ""):
        return "outside the envelope"
    return str(response.json().get("code"))


@contextmanager
def steady_load(
    url: str, *asks: Ask, callers: int = 8, pause_s: float = 0.1, is_paced: bool = False
) -> Iterator[SteadyLoad]:
    """A load that goes on until the block ends; see `SteadyLoad.figures`. Callers pause so long
    between two requests; where it is paced, each asks once in that time, not all at once."""
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it has a line for each request
    load = SteadyLoad(url, asks, callers=callers, pause_s=pause_s, is_paced=is_paced)
    load.start()
    try:
        yield load
    finally:
        load.stop()
