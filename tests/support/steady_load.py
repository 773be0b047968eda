"""A small steady load on a gateway, each answer checked against what the named version must say.

N callers send one request after the other, at a pace, from a thread of their own, while a test does
harm. What counts afterwards: sent, failed, wrong, and the longest wait. Every request has a number
of its own in it, so an answer that was meant for somebody else is seen. The callers are
`raw_callers`: a client library's pool of 200 connections is slower than the gateway.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from tests.support.processes import poll
from tests.support.raw_callers import Answer, RawCaller

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
    def headers(self) -> dict[str, str]:
        return {} if self.version is None else {"X_Model_Version": str(self.version)}


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
        async with asyncio.TaskGroup() as group:
            for number in range(self._callers):
                group.create_task(self._call(number))

    async def _call(self, number: int) -> None:
        asks = itertools.cycle(self._asks)
        for _ in range(number % len(self._asks)):
            next(asks)
        due = time.monotonic()
        if self._is_paced:  # not all at the same moment
            due += self._pause_s * number / self._callers
            await asyncio.sleep(due - time.monotonic())
        with closing(RawCaller(self._url)) as caller:
            while not self._stopping.is_set():
                await self._ask(caller, next(asks))
                now = time.monotonic()
                due = (max(due, now - self._pause_s) if self._is_paced else now) + self._pause_s
                await asyncio.sleep(due - now)

    async def _ask(self, caller: RawCaller, ask: Ask) -> None:
        n = next(self._numbers)
        began = time.monotonic()
        problem, wrong = None, None
        try:
            async with asyncio.timeout(HUNG_AFTER_S):
                answer = await caller.predict(ask.model, ask.body(n), **ask.headers)
        except TimeoutError:
            problem = "hung"
        except (OSError, EOFError) as error:
            problem = type(error).__name__
        else:
            problem, wrong = _judged(ask, n, answer)
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


def _judged(ask: Ask, n: int, answer: Answer) -> tuple[str | None, str | None]:
    """What failed, and what was wrong with an answer that claims to be good."""
    if answer.status != HTTPStatus.OK:
        return f"{answer.status} {_code(answer)}", None
    said, answered_by = answer.json(), answer.headers.get("x-model-version")
    if said != ask.answer(n) or (ask.version and answered_by != str(ask.version)):
        return None, f"{ask.model} version {answered_by} said {said} to {ask.body(n)}"
    return None, None


def _code(answer: Answer) -> str:
    if "json" not in answer.headers.get("content-type", ""):
        return "outside the envelope"
    return str(answer.json().get("code"))


@contextmanager
def steady_load(
    url: str, *asks: Ask, callers: int = 8, pause_s: float = 0.1, is_paced: bool = False
) -> Iterator[SteadyLoad]:
    """A load that goes on until the block ends; see `SteadyLoad.figures`. Callers pause so long
    between two requests; where it is paced, each asks once in that time, not all at once."""
    load = SteadyLoad(url, asks, callers=callers, pause_s=pause_s, is_paced=is_paced)
    load.start()
    try:
        yield load
    finally:
        load.stop()
