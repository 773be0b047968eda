"""Which tests are run in one process (`tests.support.scheduling`)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.scheduling import SHARED, arrange, shared_by


def item(file: str, *fixtures: str) -> Any:
    return SimpleNamespace(nodeid=f"{file}::test", fixturenames=fixtures)


def test_what_is_shared_begins_first_and_unit_tests_are_last() -> None:
    """By the fixtures that a file names; the others stay in their order."""
    files = ["tests/unit/test_docs.py", "tests/integration/test_access.py",
             "tests/contract/test_agents.py", "tests/e2e/test_rollout.py"]  # fmt: skip
    items = [item(file) for file in files]
    arrange(items)
    assert [each.nodeid.partition("::")[0] for each in items] == [
        files[3], files[2], files[1], files[0],
    ]  # fmt: skip
    assert shared_by(files[3]) in SHARED
    assert shared_by(files[1]) is None


@pytest.mark.parametrize("fixture", SHARED)
def test_what_a_file_does_not_tell_stops_the_run(fixture: str) -> None:
    """A test that shares a gateway by a fixture of which the scheduler can't know."""
    with pytest.raises(pytest.UsageError, match="test_access"):
        arrange([item("tests/integration/test_access.py", fixture)])
