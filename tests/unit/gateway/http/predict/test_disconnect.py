"""Callers who leave before they are answered."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.cancellation import is_cancelled
from gateway.http.predict.disconnect import CallerLeft, Departure


async def gone() -> dict[str, Any]:
    return {"type": "http.disconnect"}


async def silent() -> dict[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_caller_who_leaves_ends_the_wait() -> None:
    """What takes long is cancelled once its caller is gone; the task itself goes on."""
    with pytest.raises(CallerLeft), Departure(gone, patience_s=0.0):
        await asyncio.wait_for(asyncio.Event().wait(), 10)
    assert not is_cancelled()


async def test_a_task_that_is_cancelled_as_well_stays_cancelled() -> None:
    """The server's cancellation isn't taken for the caller's leaving."""
    began = asyncio.Event()

    async def answering() -> None:
        try:
            with Departure(gone, patience_s=0.0):
                began.set()
                await asyncio.Event().wait()
        finally:
            assert is_cancelled()

    task = asyncio.ensure_future(answering())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_something_shared_that_was_cancelled_is_nobody_s_leaving() -> None:
    """A CancelledError that nobody asked for passes as what it is, and the task isn't cancelled."""
    shared = asyncio.get_running_loop().create_future()
    shared.cancel()
    with pytest.raises(asyncio.CancelledError), Departure(silent, patience_s=0.0):
        await shared
    assert not is_cancelled()


async def test_a_quick_answer_is_not_watched() -> None:
    """Nothing is asked of the connection where the answer is there in time."""
    asked = []

    async def receive() -> dict[str, Any]:
        asked.append(1)
        return await gone()

    with Departure(receive, patience_s=60.0):
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert asked == []


async def test_a_caller_who_stays_is_waited_for() -> None:
    """The watch ends with the answer, and leaves no task behind."""
    before = asyncio.all_tasks()
    with Departure(silent, patience_s=0.0):
        for _ in range(5):
            await asyncio.sleep(0.001)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
