"""How much of an event loop work beside the requests may take: a share of what they leave.

Time that such work spends on the loop is time in which no request gets on. So each step of it is
measured, and followed by a pause that is longer the busier the loop's thread is. Must not import
ray, mlflow or fastapi.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")

_SHARE_OF_IDLE = 0.25
_LEAST_SHARE = 0.02
_WINDOW_S = 0.05
_LONGEST_PAUSE_S = 1.0


class Budget:
    """Measures work, and says how long it has to wait after that. `clock` and `cpu` give seconds:
    of time, and of this thread's work."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.perf_counter,
        cpu: Callable[[], float] = time.thread_time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._cpu = cpu
        self._sleep = sleep
        self._spent_s = 0.0
        self._looked = (clock(), cpu())
        self._idle = 1.0

    async def within(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What comes of the work; raises what it raises. What it does on the loop is counted, and
        not what it waits for."""
        return await _Metered(work, self)

    async def pause(self) -> None:
        """Wait until what was done since the last pause is no more than its share."""
        spent_s, self._spent_s = self._spent_s, 0.0
        share = max(_LEAST_SHARE, _SHARE_OF_IDLE * self._idle_share())
        await self._sleep(min(_LONGEST_PAUSE_S, spent_s / share - spent_s))

    def spend(self, spent_s: float) -> None:
        """So much was done on the loop."""
        self._spent_s += spent_s

    def _idle_share(self) -> float:
        """Which share of the time the thread had nothing to do lately."""
        (then, worked), now = self._looked, self._clock()
        if now - then >= _WINDOW_S:
            cpu = self._cpu()
            self._idle = max(0.0, 1.0 - (cpu - worked) / (now - then))
            self._looked = (now, cpu)
        return self._idle

    @property
    def clock(self) -> Callable[[], float]:
        """What the work is measured with."""
        return self._clock


class _Metered(Awaitable[_T], Generic[_T]):
    """A coroutine whose steps are measured."""

    def __init__(self, work: Coroutine[Any, Any, _T], budget: Budget) -> None:
        self._work = work
        self._budget = budget

    def __await__(self) -> Generator[Any, Any, _T]:
        return _Steps(self._work, self._budget)


class _Steps(Generator[Any, Any, _T]):
    """The steps of a coroutine: what is sent or thrown into it, a cancellation above all, goes to
    that."""

    def __init__(self, work: Coroutine[Any, Any, _T], budget: Budget) -> None:
        self._work = work
        self._budget = budget

    def send(self, value: Any) -> Any:
        return self._measured(self._work.send, value)

    def throw(self, *thrown: Any) -> Any:
        return self._measured(self._work.throw, *thrown)

    def _measured(self, step: Callable[..., Any], *arguments: Any) -> Any:
        began = self._budget.clock()
        try:
            return step(*arguments)
        finally:
            self._budget.spend(self._budget.clock() - began)
