"""Callers who leave before they are answered."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.http.predict.disconnect import Departure


async def gone() -> dict[str, Any]:
    return {"type": "http.disconnect"}


async def silent() -> dict[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_caller_who_leaves_ends_the_wait() -> None:
    """What takes long is cancelled once its caller is gone."""

    async def answering() -> None:
        with Departure(gone, patience_s=0.0):
            await asyncio.Event().wait()

    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(10):
            await asyncio.ensure_future(answering())


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
