"""Which tests are run in one process, where there are several (`pytest -n`), and in what order.

A gateway takes fifteen seconds of processor time to start, and goes on taking some; so tests that
share one are run in one process, one after the other, and begin first. The rest goes file by file,
unit tests at last, where they fill the gaps.

The scheduler knows files and names of tests, and not their fixtures: what a file shares is told by
the names that are in it. Where pytest knows better, nothing is run (`arrange`).
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parents[2]
SHARED = {
    "shared_gateway": "shared_gateway",
    "gateway_client": "shared_gateway",
    "fuzzed": "shared_gateway",
    "impatient_gateway": "impatient_gateway",
    "agents_app": "agents_uri",
    "agents_uri": "agents_uri",
}
"""The fixtures that tests of several files share, by themselves and by those that have them."""


@cache
def shared_by(file: str) -> str | None:
    """The fixture that the tests of a file share with those of other files."""
    words = set(re.findall(r"\w+", (ROOT / file).read_text(encoding="utf-8")))
    return next((shared for name, shared in SHARED.items() if name in words), None)


def file_of(nodeid: str) -> str:
    """The file that a test is in."""
    return nodeid.partition("::")[0]


def arrange(items: list[pytest.Item]) -> None:
    """Sort them. Raises pytest.UsageError where one shares what its file doesn't tell: it would be
    run in any process, and at any time."""
    for item in items:
        uses = {SHARED[name] for name in SHARED if name in getattr(item, "fixturenames", ())}
        if not uses <= {shared_by(file_of(item.nodeid))}:
            raise pytest.UsageError(f"{item.nodeid} uses {uses}: see {__name__}")
    items.sort(key=lambda item: _place_of(file_of(item.nodeid)))


def _place_of(file: str) -> int:
    shared = shared_by(file)
    if shared is not None:
        return [*SHARED.values()].index(shared) - len(SHARED)
    return int(file.startswith("tests/unit/"))


class Together(LoadScopeScheduling):
    """Gives a process all tests that share something, else all of a file, one after another."""

    def _split_scope(self, nodeid: str) -> str:
        return shared_by(file_of(nodeid)) or file_of(nodeid)
