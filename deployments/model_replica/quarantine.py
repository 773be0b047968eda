"""Circuit breaker per version: what fails, hangs or ends its process isn't tried for a while.

Exponential back-off per version, and a count of strikes for what may be somebody else's doing: a
process may be killed by the system or by a person, and a call may hang once. Pure policy over a
clock; each version has a process of its own, so what happens to it is that version's alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["load", "call"]
"""What a version was at: being put into memory, or answering."""

STRIKES = 3
"""How often a version's process may end at work, or its call hang, before it is suspended."""

# For how long a strike counts, in seconds. A call's is soon forgotten; a load is rare.
_STRIKE_S: dict[Kind, float] = {"load": 600.0, "call": 60.0}
_MOST_DOUBLINGS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspension:
    """A version that is not tried for `left_s` seconds, and why: `kind` is what it went wrong at or
    lacks, `reason` may be told to anybody."""

    kind: Kind | Literal["environment", "room"]
    left_s: float
    reason: str


@dataclass(slots=True, kw_only=True)
class _Trouble:
    """What is known against one version; times are the clock's. `strikes` and `hangs` are when
    each ceases to count, `suspensions` how often in a row it was suspended."""

    strikes: list[float] = field(default_factory=list)
    hangs: list[float] = field(default_factory=list)
    suspensions: int = 0
    kind: Kind = "load"
    reason: str = ""
    until: float = 0.0


class Quarantine:
    """What is known against the versions of one supervisor.

    `retry_after_s` is how long a version is suspended the first time; it doubles with each time in
    a row, up to eight times as long.
    """

    def __init__(
        self, *, retry_after_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._retry_after_s = retry_after_s
        self._clock = clock
        self._troubles: dict[str, _Trouble] = {}

    def suspension(self, key: str) -> Suspension | None:
        """Why the version isn't to be tried now; None where it may be."""
        trouble = self._troubles.get(key)
        left_s = 0.0 if trouble is None else trouble.until - self._clock()
        if trouble is None or left_s <= 0.0:
            return None
        return Suspension(kind=trouble.kind, left_s=left_s, reason=trouble.reason)

    def load_failed(self, key: str, reason: str) -> None:
        """The version can't be put into memory: it fails, or takes longer than it may."""
        self._suspend(self._trouble(key), "load", reason)

    def died(self, key: str, kind: Kind, reason: str) -> None:
        """The version's process ended at work."""
        trouble = self._trouble(key)
        trouble.strikes.append(self._clock() + _STRIKE_S[kind])
        self._judge(trouble, kind, reason)

    def hung(self, key: str, reason: str) -> None:
        """A call of the version didn't come to an end."""
        trouble = self._trouble(key)
        trouble.hangs.append(self._clock() + _STRIKE_S["call"])
        self._judge(trouble, "call", reason)

    def loaded(self, key: str) -> None:
        """The version is in memory: what it was suspended for is over, if that was its load."""
        trouble = self._troubles.get(key)
        if trouble is not None and trouble.suspensions and trouble.kind == "load":
            del self._troubles[key]

    def answered(self, key: str) -> None:
        """A call of the version was answered: what it was suspended for is over.

        It also takes back what hung before it: those were single requests. It says nothing about
        who ended a process.
        """
        trouble = self._troubles.get(key)
        if trouble is None:
            return
        if trouble.suspensions:
            del self._troubles[key]
        else:
            trouble.hangs = []

    def _judge(self, trouble: _Trouble, kind: Kind, reason: str) -> None:
        """Suspend the version if what has just happened was once too often."""
        now = self._clock()
        trouble.strikes = [at for at in trouble.strikes if at > now]
        trouble.hangs = [at for at in trouble.hangs if at > now]
        if trouble.suspensions or len(trouble.strikes) + len(trouble.hangs) >= STRIKES:
            self._suspend(trouble, kind, reason)

    def _suspend(self, trouble: _Trouble, kind: Kind, reason: str) -> None:
        doublings = min(trouble.suspensions, _MOST_DOUBLINGS)
        trouble.suspensions += 1
        trouble.strikes, trouble.hangs = [], []
        trouble.kind, trouble.reason = kind, reason
        trouble.until = self._clock() + self._retry_after_s * 2**doublings

    def _trouble(self, key: str) -> _Trouble:
        return self._troubles.setdefault(key, _Trouble())
