"""Pauses that grow."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from deployments.backoff import Backoff

SECONDS = st.floats(min_value=0.01, max_value=3600)


@given(least=SECONDS, most=SECONDS, failures=st.integers(0, 10**6), seed=st.integers())
def test_pauses_stay_in_their_bounds(least: float, most: float, failures: int, seed: int) -> None:
    """Never shorter than the least, never longer than the most (or the least, if that is more)."""
    pause = Backoff(least_s=least, most_s=most).pause_s(failures, Random(seed))
    assert least <= pause <= max(least, most)


def test_without_failures_there_is_no_jitter() -> None:
    """A registry that answers is looked at as often as was set."""
    assert Backoff(least_s=10, most_s=60).pause_s(0, Random(1)) == 10


def test_pauses_double_on_the_whole_and_differ_between_two() -> None:
    """The mean of many grows with the failures up to the most; two who fail together part ways."""
    backoff = Backoff(least_s=1, most_s=16)
    means = []
    for failures in range(1, 7):
        drawn = [backoff.pause_s(failures, Random(seed)) for seed in range(200)]
        assert len(set(drawn)) == 200
        means.append(sum(drawn) / 200)
    assert means[:4] == sorted(means[:4])
    assert means[0] < 2 < means[3]
    assert abs(means[4] - means[5]) < 0.01


def test_a_seed_repeats_the_pauses() -> None:
    """Chance comes from the random numbers that are handed in, and from nowhere else."""
    backoff = Backoff(least_s=1, most_s=60)
    first, second = Random(7), Random(7)
    assert [backoff.pause_s(n, first) for n in range(9)] == [
        backoff.pause_s(n, second) for n in range(9)
    ]
