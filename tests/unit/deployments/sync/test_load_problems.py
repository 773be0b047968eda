"""What is remembered of loads and starts that failed."""

from __future__ import annotations

from deployments.sync.failed_starts import FailedStarts
from deployments.sync.load_problems import LoadProblems
from tests.support.catalogs import catalog, served, version


def test_a_reason_is_told_until_its_version_loads() -> None:
    """The last load counts, of each version by itself."""
    problems, now = LoadProblems(), catalog(served(version(1), version(2)))
    problems.note_failure("m", version(1), "ImportError")
    problems.note_failure("m", version(2), "")
    assert problems.told(now) == {"m": {1: "ImportError", 2: ""}}
    problems.note_load("m", version(1))
    assert problems.told(now) == {"m": {2: ""}}


def test_a_reason_goes_with_its_version() -> None:
    """Other artifacts under the same number haven't failed, and what is gone has no reason."""
    problems = LoadProblems()
    for number in (1, 2):
        problems.note_failure("m", version(number), "ImportError")
    problems.note_failure("gone", version(1), "ImportError")
    now = catalog(served(version(1), version(2, fingerprint="another")))
    assert problems.told(now) == {"m": {1: "ImportError"}}
    assert problems.told(catalog()) == {}


def test_a_failed_start_is_known_until_it_comes_up_or_is_another() -> None:
    """Where it would be placed otherwise, or isn't wanted any more, nothing is known of it."""
    starts = FailedStarts()
    starts.note("app", {"num_gpus": 64}, "There is no room.")
    assert starts.reason("app", {"num_gpus": 64}) == "There is no room."
    assert starts.reason("app", {"num_gpus": 0}) is None
    assert starts.reason("other", {"num_gpus": 64}) is None
    starts.retain({"other"})
    assert not starts.names
    starts.note("app", {"num_gpus": 64}, "There is no room.")
    starts.forget("app")
    assert starts.reason("app", {"num_gpus": 64}) is None
