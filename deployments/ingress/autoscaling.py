"""The ingress' autoscaling policy: replicas by the predictions that are inside of them.

Predictions are answered before Ray's machinery (docs/decisions/0015), so Ray's own count doesn't
see them. Each replica tells it (`Ingress.record_autoscaling_stats`), and Ray's controller asks this
policy, which travels there by value. Must not import anything of ours.
"""

from __future__ import annotations

import math
from typing import Any

from ray.serve.config import AutoscalingContext

IN_FLIGHT = "predictions_in_flight"
"""What a replica tells under this name: how many predictions are inside of it."""


def replicas_by_requests(context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
    """As many replicas as have `target_ongoing_requests` each; Ray keeps the bounds and waits with
    what doesn't last. Told nothing yet, it leaves things as they are."""
    told = (context.aggregated_metrics or {}).get(IN_FLIGHT)
    if not told or context.config is None:
        return context.target_num_replicas, {}
    target = context.config.get_target_ongoing_requests()
    return max(1, math.ceil(sum(told.values()) / target)), {}
