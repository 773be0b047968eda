"""Telling a task's own cancellation from that of what it awaits. Asyncio only."""

from __future__ import annotations

import asyncio


def is_cancelled() -> bool:
    """Whether somebody has cancelled the task that runs. If not, a CancelledError in it comes of
    something shared that was cancelled, and is an error like any other."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
