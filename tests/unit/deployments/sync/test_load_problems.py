"""What is remembered of loads that failed."""

from __future__ import annotations

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
