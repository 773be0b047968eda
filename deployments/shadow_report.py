"""A report of an ingress replica on its shadows, as it travels to the sync service.

Plain values only, because the two ends may be of different releases during an upgrade. Must not
import ray.
"""

from __future__ import annotations

from typing import Any, TypedDict


class ShadowReport(TypedDict):
    """What one replica (`host`) counted since its report before, by model: `ShadowFigures` as plain
    values. One of a `number` that was counted before is that report again."""

    host: str
    number: int
    figures: dict[str, dict[str, Any]]
