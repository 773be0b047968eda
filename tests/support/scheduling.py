"""Which tests are run in one process, where there are several (`pytest -n`), and in what order.

A gateway takes fifteen seconds of processor time to start, and goes on taking some; so tests that
share one are run in one process, and begin first. The rest goes file by file, unit tests at last,
where they fill the gaps.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

_SHARED = {
    "tests/contract/": "gateway",
    "tests/e2e/test_": "gateway",
    "tests/integration/test_code_paths.py": "gateway",
    "tests/integration/test_hot_path.py": "gateway",
    "tests/integration/test_monitoring.py": "gateway",
    "tests/integration/test_logs.py": "gateway",
    "tests/fuzz/": "fuzzed gateway",
}
"""Beginnings of names, and what the tests share."""


def shared_by(nodeid: str) -> str | None:
    """What a test shares with others, by its name."""
    return next((name for start, name in _SHARED.items() if nodeid.startswith(start)), None)


def place_of(nodeid: str) -> int:
    """What a test is to be sorted by."""
    if shared_by(nodeid) is not None:
        return 0
    return 2 if nodeid.startswith("tests/unit/") else 1


class Together(LoadScopeScheduling):
    """Gives a process all tests that share something, else all of a file, one after another."""

    def _split_scope(self, nodeid: str) -> str:
        return shared_by(nodeid) or nodeid.partition("::")[0]
