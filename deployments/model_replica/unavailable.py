"""What it comes to that a version isn't to be had now: why, for how long, what callers are told.

Must not import ray.
"""

from __future__ import annotations

import time
from typing import Any

from deployments.model_replica.quarantine import Suspension
from deployments.model_replica.version_environments import EnvironmentBuilding

_OUTCOMES = {
    "load": "load_failed",
    "call": "suspended",
    "environment": "building",
    "room": "building",
}
_BUILDING_RETRY_S = 5.0
CLOSING = Suspension(kind="load", left_s=1.0, reason="the replica is ending")


class VersionUnavailable(Exception):
    """A version is not to be had now; `suspension` says why and for how long."""

    def __init__(self, suspension: Suspension) -> None:
        super().__init__(suspension.reason)
        self.suspension = suspension

    def outcome(self) -> tuple[str, dict[str, Any]]:
        """What a call of it, or a load, comes to."""
        kind = _OUTCOMES[self.suspension.kind]
        told = {"retry_after_s": self.suspension.left_s, "reason": self.suspension.reason}
        return (kind, told)


def building_now(building: EnvironmentBuilding) -> Suspension:
    """What is told while an environment isn't there yet."""
    spent_s = max(0.0, time.time() - building.since)
    how = "is being built" if building.is_begun else "waits for being built"
    before = "" if building.failed is None else f"; the last time it couldn't be: {building.failed}"
    return Suspension(
        kind="environment",
        left_s=_BUILDING_RETRY_S,
        reason=f"its environment {how}, for {spent_s:.0f} s so far{before}",
    )
