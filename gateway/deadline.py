"""Deadlines. Made once, when a request arrives, and passed down; seconds are made of one only where
it goes to another machine. Imports nothing of the project.
"""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment by which an answer must be there.

    `at_s` is of the monotonic clock, in seconds, which all processes of a machine share.
    """

    at_s: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The moment in so many seconds."""
        return cls(time.monotonic() + seconds)

    def left_s(self) -> float:
        """The seconds until then, 0 where there are none."""
        return max(0.0, self.at_s - time.monotonic())

    def share(self, part: float) -> Deadline:
        """The moment at which that part of the time that is left has passed."""
        now_s = time.monotonic()
        return Deadline(now_s + (self.at_s - now_s) * part)
