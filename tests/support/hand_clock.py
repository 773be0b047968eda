"""A clock that stands still until the test moves it."""

from __future__ import annotations


class HandClock:
    """A clock in seconds whose time is `now`; the test adds to it."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
