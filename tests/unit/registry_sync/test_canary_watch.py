"""When a canary is stopped by itself."""

from __future__ import annotations

import pytest

from gateway.canary import Canary, CanaryRule
from gateway.catalog import Catalog
from registry_sync.canary_watch import CanaryWatch
from tests.support.catalogs import catalog, served, version
from tests.support.clocks import Clock


def _catalog(trial: str = "t", state: str = "running", most: float | None = 0.1) -> Catalog:
    rule = CanaryRule(selector="2", percent=10, max_error_ratio=most, min_requests=20)
    canary = Canary.model_validate({"rule": rule, "version": 2, "state": state, "trial": trial})
    return catalog(served(version(1), version(2), default=1, canary=canary))


def _stopped(watch: CanaryWatch, replica: str, requests: int, errors: int) -> bool:
    return bool(watch.take(replica, {"t": (requests, errors)}, _catalog()))


def test_a_canary_that_fails_too_often_is_to_be_stopped() -> None:
    """Past the ratio, of at least as many requests as the tag says; the reason has the numbers."""
    assert not _stopped(CanaryWatch(), "a", 19, 19)
    assert not _stopped(CanaryWatch(), "a", 20, 2)
    (found,) = CanaryWatch().take("a", {"t": (20, 3)}, _catalog())
    assert (found.model, found.trial) == ("m", "t")
    assert found.why.startswith("3 of 20 requests failed by its own doing")


@pytest.mark.parametrize("percent", range(1, 101))
def test_what_is_just_the_ratio_is_let(percent: int) -> None:
    """As people count: 29 of 100 aren't more than 0.29, and 30 are."""
    told = _catalog(most=float(f"{percent / 100:.2f}"))
    assert not CanaryWatch().take("a", {"t": (100, percent)}, told)
    assert percent == 100 or CanaryWatch().take("a", {"t": (100, percent + 1)}, told)


def test_all_replicas_count_together() -> None:
    """Each one's counts alone are too few, and those of one that is gone count on."""
    watch = CanaryWatch()
    assert not _stopped(watch, "a", 10, 3)
    assert _stopped(watch, "b", 10, 3)


def test_what_is_told_twice_counts_once() -> None:
    """A replica tells all that it has counted, again and again."""
    watch = CanaryWatch()
    assert not any(_stopped(watch, "a", 10, 10) for _ in range(5))
    assert _stopped(watch, "a", 20, 10)


def test_one_that_was_good_for_long_is_stopped_by_its_last_minutes() -> None:
    """A hundred thousand good answers don't hide that it fails now."""
    clock = Clock()
    watch = CanaryWatch(clock)
    for minute in range(30):
        clock.now += 60
        assert not _stopped(watch, "a", 100_000 + 10 * minute, 0)
    clock.now += 60
    assert not _stopped(watch, "a", 100_300, 2)
    clock.now += 60
    assert _stopped(watch, "a", 100_330, 20)


def test_what_failed_long_ago_is_judged_by_all_of_it_only() -> None:
    """Few errors in many requests are none of the last minutes'."""
    clock = Clock()
    watch = CanaryWatch(clock)
    assert not _stopped(watch, "a", 1000, 99)
    clock.now += 1000
    assert not _stopped(watch, "a", 1010, 100)
    clock.now += 1000
    assert not _stopped(watch, "a", 1040, 101)


def test_other_trials_are_not_looked_at() -> None:
    """Of a canary that is over, has no bound, or doesn't run."""
    failed = {"t": (100, 100)}
    assert CanaryWatch().take("a", failed, _catalog(trial="other")) == []
    assert CanaryWatch().take("a", failed, _catalog(state="stopped")) == []
    assert CanaryWatch().take("a", failed, _catalog(most=None)) == []
