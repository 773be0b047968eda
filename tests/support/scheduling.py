"""Which tests are run in one process, where there are several (`pytest -n`), and in what order.

A gateway takes fifteen seconds of processor time to start, and goes on taking some; so tests that
share one are run in one process, one after the other, and begin first. The rest goes file by file,
unit tests at last, where they fill the gaps.

What a test shares is told by its fixtures, of which the scheduler knows nothing: it has the tests'
names only. So a process appends it to the names of its tests, as xdist does with its own groups.
Nobody has to list what shares a gateway, and nothing can be forgotten there.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

SHARED = {
    "shared_gateway": "shared_gateway",
    "gateway_client": "shared_gateway",  # asks for it while it runs
    "impatient_gateway": "impatient_gateway",
    "agents_uri": "agents_uri",
}
"""The fixtures that tests of several files share, and those by which they have them."""

_SHARES = pytest.StashKey[str | None]()


def arrange(items: list[pytest.Item]) -> None:
    """Sort them, and note what each shares: what any test of its file does, for they have more in
    common."""
    by_file: dict[Path, set[str]] = {}
    for item in items:
        names = getattr(item, "fixturenames", ())
        by_file.setdefault(item.path, set()).update(
            SHARED[name] for name in SHARED if name in names
        )
    for item in items:
        shared = by_file[item.path]
        if len(shared) > 1:
            raise pytest.UsageError(f"{item.path} can't be run beside all of {sorted(shared)}")
        item.stash[_SHARES] = next(iter(shared), None)
    items.sort(key=_place_of)


def shared_by(item: pytest.Item) -> str | None:
    """The fixture that a test shares with those of other files."""
    return item.stash[_SHARES]


def _place_of(item: pytest.Item) -> int:
    shared = shared_by(item)
    if shared is not None:
        return [*SHARED.values()].index(shared) - len(SHARED)
    return int(item.nodeid.startswith("tests/unit/"))


def name_with_scope(item: pytest.Item) -> str:
    """A test's name for the scheduler."""
    shared = shared_by(item)
    return item.nodeid if shared is None else f"{item.nodeid}@{shared}"


def scope_of(name: str) -> str:
    """What `name_with_scope` has said: tests of one scope are run in one process."""
    before, _, shared = name.rpartition("@")
    return shared if before and "]" not in shared else name.partition("::")[0]


class Together(LoadScopeScheduling):
    """Gives a process all tests that share something, else all of a file, one after another."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)
