"""How much of the event loop work beside the requests takes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from gateway.shadow.budget import Budget


class Loop:
    """A clock that work moves, a thread that is busy for a share of it, and the pauses."""

    def __init__(self, busy: float) -> None:
        self.now = 0.0
        self.busy = busy
        self.pauses: list[float] = []

    def clock(self) -> float:
        return self.now

    def cpu(self) -> float:
        return self.now * self.busy

    def sleep(self, seconds: float) -> Awaitable[None]:
        self.pauses.append(seconds)
        self.now += seconds
        return asyncio.sleep(0)


def budget_of(loop: Loop) -> Budget:
    return Budget(clock=loop.clock, cpu=loop.cpu, sleep=loop.sleep)


@pytest.mark.parametrize(("busy", "share"), [(0.0, 0.25), (0.5, 0.125), (1.0, 0.02)])
async def test_work_has_a_share_of_what_requests_leave(busy: float, share: float) -> None:
    """A quarter of the idle time, and a little where there is none."""
    loop = Loop(busy)
    budget = budget_of(loop)

    async def work() -> str:
        loop.now += 0.001
        return "done"

    began, worked = loop.now, 0.0
    for _ in range(200):
        assert await budget.within(work()) == "done"
        worked += 0.001
        await budget.pause()
    assert worked / (loop.now - began) == pytest.approx(share, rel=0.1)


async def test_waiting_is_no_work() -> None:
    """What a shadow takes to answer costs nothing."""
    loop = Loop(busy=0.0)
    budget = budget_of(loop)
    coming: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work() -> int:
        return await coming

    waiting = asyncio.create_task(budget.within(work()))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    loop.now += 100.0
    coming.set_result(3)
    assert await waiting == 3
    await budget.pause()
    assert loop.pauses == [0.0]


async def test_errors_and_cancellation_reach_the_work() -> None:
    """What is thrown into the measured work arrives there, and what it raises comes out."""
    budget, seen = budget_of(Loop(busy=0.0)), []

    async def fails() -> Any:
        raise KeyError

    with pytest.raises(KeyError):
        await budget.within(fails())

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def measured() -> None:
        await budget.within(forever())

    going_on = asyncio.create_task(measured())
    await asyncio.sleep(0)
    going_on.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going_on
    assert seen == ["cancelled"]

    async def times_out() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            return "in time"
        return "never"

    assert await budget.within(times_out()) == "in time"
