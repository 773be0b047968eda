"""Exponential backoff with jitter. Pure; must not import ray."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

_MOST_DOUBLINGS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Pauses between `least_s` and a ceiling that doubles with each failure, up to `most_s`.

    Anything between the two is as likely ("full jitter"): those who failed together don't come
    back together. `most_s` below `least_s` means that pauses don't grow.
    """

    least_s: float
    most_s: float

    def pause_s(self, failures: int, random: Random) -> float:
        """How long to wait after that many failures in a row; `least_s` after none."""
        doubled = self.least_s * 2.0 ** min(failures, _MOST_DOUBLINGS)
        return random.uniform(self.least_s, max(self.least_s, min(self.most_s, doubled)))
