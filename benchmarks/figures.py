"""From latencies to figures: percentiles of a round, medians of rounds. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one round came to, or the median of several."""

    per_s: float
    p50_ms: float
    p99_ms: float
    failed: int = 0
    cpu_s_per_1000: float | None = None
    """Processor seconds of the server's processes for 1,000 requests; None where nobody looked."""


def percentile(ascending: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of values in ascending order; raises ValueError for none."""
    if not ascending:
        raise ValueError("there is no percentile of nothing")
    rank = math.ceil(len(ascending) * percent / 100)
    return ascending[max(rank, 1) - 1]


def figures_of(took_s: Sequence[float], seconds: float) -> Figures:
    """The figures of the requests that were answered within `seconds`, from their latencies."""
    ascending = sorted(took_s)
    return Figures(
        per_s=len(ascending) / seconds,
        p50_ms=percentile(ascending, 50) * 1e3,
        p99_ms=percentile(ascending, 99) * 1e3,
    )


def median_figures(rounds: Sequence[Figures]) -> Figures:
    """Each figure's own median over the rounds; raises StatisticsError for none."""
    costs = [each.cpu_s_per_1000 for each in rounds if each.cpu_s_per_1000 is not None]
    return Figures(
        per_s=median(each.per_s for each in rounds),
        p50_ms=median(each.p50_ms for each in rounds),
        p99_ms=median(each.p99_ms for each in rounds),
        cpu_s_per_1000=median(costs) if costs else None,
    )
