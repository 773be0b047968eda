"""Shadows in a replica: processes of their own, of which each model has one, and that go first.

The rules, for `supervisor`: a shadow makes no room for itself, so it isn't loaded where memory is
scarce or the shared deployment's is full; it ends where another one of its model comes, where it
isn't asked for a while, and where memory gets scarce. What becomes of it is told nobody: it isn't
in the LRU, nor restarted, nor among the loads that are counted. Knows no Ray and starts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from deployments.model_replica.memory_budget import free_share
from deployments.model_replica.quarantine import Suspension
from deployments.model_replica.version_process import State, VersionId, VersionProcess

_IDLE_S = 120.0
_SCARCE = 0.05
NO_ROOM = Suspension(
    kind="room", left_s=30.0, reason="there is too little memory for a shadow beside the others"
)


class Asides:
    """`free` tells which share of the machine's memory can be had; `idle_s` is how long a shadow
    that isn't asked stays."""

    def __init__(self, free: Callable[[], float] = free_share, idle_s: float = _IDLE_S) -> None:
        self._free = free
        self._idle_s = idle_s

    def refusal(self) -> Suspension | None:
        """Why no shadow is to be loaded now; None where one may be."""
        return NO_ROOM if self._free() < _SCARCE else None

    @staticmethod
    def replaced_by(coming: VersionId, processes: Iterable[VersionProcess]) -> list[VersionProcess]:
        """The shadows that end because another one of their model comes."""
        return [
            each
            for each in processes
            if each.version.aside
            and each.version.model == coming.model
            and each.version.key != coming.key
            and each.state is State.READY
        ]

    def to_end(self, processes: Iterable[VersionProcess], now: float) -> list[VersionProcess]:
        """The shadows that have to go at this moment of the monotonic clock."""
        shadows = [each for each in processes if each.version.aside and each.state is State.READY]
        if shadows and self._free() < _SCARCE:
            return shadows
        return [
            each for each in shadows if not each.is_at_work and now - each.used_at > self._idle_s
        ]
