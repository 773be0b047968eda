"""Requests that wait for a replica are told to Serve's controller at once.

Where a deployment has no replica (scaled to zero), Ray's router reports its queue as soon as a
request comes, so that one is started. But what it reports are the points that it noted every few
seconds: the request that has just come is in none of them, and the controller hears of it with the
next report, up to 16 seconds later. Its class is private (see docs/11).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ray.serve._private import router

_PUSH = "push_autoscaling_metrics_to_controller"


def report_who_waits() -> None:
    """Have each report begin with how many wait now, in this process."""
    push = getattr(router.RouterMetricsManager, _PUSH, None)
    if push is not None and not getattr(push, "is_ours", False):
        setattr(router.RouterMetricsManager, _PUSH, _with_a_point(push))


def _with_a_point(push: Callable[[Any], None]) -> Callable[[Any], None]:
    @functools.wraps(push)
    def push_with_a_point(self: Any) -> None:
        if self.num_queued_requests > 0:
            self._add_autoscaling_metrics_point()
        push(self)

    push_with_a_point.is_ours = True  # type: ignore[attr-defined]
    return push_with_a_point
