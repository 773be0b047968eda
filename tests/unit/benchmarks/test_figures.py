"""From latencies to figures."""

from __future__ import annotations

from statistics import StatisticsError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures import Figures, figures_of, median_figures, percentile

latencies = st.lists(st.floats(1e-6, 100.0), min_size=1)


@pytest.mark.parametrize(
    ("percent", "wanted"), [(1, 1.0), (50, 50.0), (99, 99.0), (99.5, 100.0), (100, 100.0)]
)
def test_percentile_of_a_hundred_values_is_the_value_of_that_rank(
    percent: float, wanted: float
) -> None:
    """Nearest rank: no value is made up between two."""
    assert percentile([float(value) for value in range(1, 101)], percent) == wanted


@given(latencies, st.floats(0, 100))
def test_a_percentile_is_one_of_the_values(values: list[float], percent: float) -> None:
    """Whatever is asked, it was measured."""
    assert percentile(sorted(values), percent) in values


def test_nothing_has_no_percentile() -> None:
    """Rather an error than a figure that looks good."""
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 99)


def test_figures_are_per_second_and_in_milliseconds() -> None:
    """Four answers in two seconds, one of them slow."""
    found = figures_of([0.001, 0.002, 0.5, 0.002], 2.0)
    assert found == Figures(per_s=2.0, p50_ms=2.0, p99_ms=500.0)


def test_each_figure_has_its_own_median() -> None:
    """The round with the median throughput need not have the median p99."""
    rounds = [
        Figures(per_s=10, p50_ms=1, p99_ms=9),
        Figures(per_s=30, p50_ms=2, p99_ms=7),
        Figures(per_s=20, p50_ms=3, p99_ms=8),
    ]
    assert median_figures(rounds) == Figures(per_s=20, p50_ms=2, p99_ms=8)


def test_no_rounds_have_no_median() -> None:
    """As with percentiles."""
    with pytest.raises(StatisticsError):
        median_figures([])
