"""Figures of shadows: they add up, stay small and survive JSON."""

from __future__ import annotations

import random

import numpy as np
import pytest

from gateway.shadow_figures import (
    COLUMNS_KEPT,
    DISAGREEMENTS_KEPT,
    OUTCOMES,
    Course,
    Disagreement,
    Failure,
    ShadowFigures,
    ShadowPair,
    Spread,
)

PAIR = ShadowPair(default=1, default_fingerprint="a", shadow=2, shadow_fingerprint="b")


def disagreement(at: float) -> Disagreement:
    return Disagreement(
        at=at, request_id=str(at), row=0, columns=("y",), default={"y": 1}, shadow={"y": 2}
    )


def test_quantiles_are_known_to_five_percent() -> None:
    """Of numbers of both signs and many sizes, counted one by one or as an array."""
    values = np.array([random.Random(7).gauss(0, 1) * 10**size for size in range(-6, 7)] * 40)
    one_by_one, at_once = Spread(), Spread()
    for value in values:
        one_by_one.observe(float(value))
    at_once.observe_all(values)
    assert one_by_one.bins == at_once.bins
    assert one_by_one.count == len(values)
    for share in (0.05, 0.5, 0.95):
        true = float(np.quantile(values, share, method="inverted_cdf"))
        assert at_once.quantile(share) == pytest.approx(true, rel=0.06)
    assert at_once.quantile(1.0) == float(values.max())


def test_the_ends_of_a_spread_are_exact() -> None:
    """The least and the most are as they were, zero is zero, and nothing has no quantile."""
    spread = Spread()
    assert spread.quantile(0.5) is None
    assert spread.difference_quantiles() == {}
    for value in (0.0, 0.0, 0.0, 7.25, -3.5):
        spread.observe(value)
    told = spread.difference_quantiles()
    assert (told["least"], told["p50"], told["most"]) == (-3.5, 0.0, 7.25)


def test_a_spread_is_a_histogram_of_any_bounds() -> None:
    """Each number is between the bounds that it is between."""
    spread = Spread()
    for value in (0.002, 0.02, 0.02, 5.0):
        spread.observe(value)
    assert spread.counts_up_to((0.01, 0.1, 1.0)) == [1, 2, 0, 1]


def test_extreme_numbers_keep_a_spread_small() -> None:
    """However many sizes there are, bins are few, and the sum can be read back."""
    spread = Spread()
    spread.observe_all(np.array([10.0**size for size in range(-300, 300)] * 2) * 1e8)
    spread.observe_all(np.array([1e308, 1e308]))
    assert len(spread.bins) < 700
    assert Spread.model_validate_json(spread.model_dump_json()) == spread


def test_figures_add_up() -> None:
    """Two replicas' figures are those of one that saw both."""
    whole, parts = figures(), [figures(), figures()]
    generator = random.Random(3)
    for number in range(200):
        outcome = generator.choice(OUTCOMES)
        for each in (whole, parts[number % 2]):
            each.note(outcome, 60.0 * number)
            column = each.column("y")
            assert column is not None
            column.rows += 1
            column.differences.observe(float(number))
            each.shadow_s.observe(0.25)
    parts[0].add(parts[1])
    assert parts[0].outcomes == whole.outcomes
    assert parts[0].columns == whole.columns
    assert parts[0].course == whole.course
    assert parts[0].compared == whole.outcomes["equal"] + whole.outcomes["different"]


def figures() -> ShadowFigures:
    return ShadowFigures(pair=PAIR, since=1.0)


def test_the_last_disagreements_are_kept() -> None:
    """As many as are shown, of whichever replica, and the last failure."""
    one, other = figures(), figures()
    for number in range(30):
        (one if number % 2 else other).keep(disagreement(float(number)))
    one.failure, other.failure = Failure(at=1.0, reason="old"), Failure(at=2.0, reason="new")
    one.add(other)
    kept = [each.at for each in one.disagreements]
    assert kept == [float(number) for number in range(30 - DISAGREEMENTS_KEPT, 30)]
    assert one.failure is not None
    assert one.failure.reason == "new"


def test_columns_are_bounded() -> None:
    """An answer of thousands of columns has figures of some."""
    counted = figures()
    for number in range(1000):
        counted.column(f"c{number}")
    assert len(counted.columns) == COLUMNS_KEPT


def test_a_course_of_months_has_few_stretches() -> None:
    """Stretches get longer, and nothing that was counted is lost."""
    course = Course()
    for minute in range(100_000):
        course.note(60.0 * minute, "equal")
    assert len(course.stretches) <= 120
    assert sum(counts[0] for counts in course.stretches.values()) == 100_000
    other = Course()
    other.note(60.0 * 5, "different")
    course.add(other)
    assert sum(counts[1] for counts in course.stretches.values()) == 1
    assert len(course.stretches) <= 120


def test_figures_outlive_json() -> None:
    """What is kept on disk, and what travels, is what was counted; NaN has become null."""
    counted = figures()
    counted.note("different", 100.0)
    counted.keep(
        Disagreement(
            at=1.0,
            request_id="r",
            row=0,
            columns=("y",),
            default={"y": float("nan")},
            shadow={"y": 1.0},
        )
    )
    again = ShadowFigures.model_validate_json(counted.model_dump_json())
    assert again.outcomes == counted.outcomes
    assert again.disagreements[0].default == {"y": None}
    assert ShadowFigures.model_validate(counted.model_dump(mode="json")).course == counted.course
