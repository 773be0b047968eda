"""A clock for tests that is moved by hand, or by those who sleep on it."""

from __future__ import annotations

import asyncio


class Clock:
    """Seconds since some moment."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Moves the clock, and lets others go on."""
        self.now += seconds
        await asyncio.sleep(0)
