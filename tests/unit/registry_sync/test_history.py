"""What is noted of models from one catalog to the next, and how it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.catalog import ServedModel
from gateway.history import HistoryEntry
from registry_sync.catalog_builder import build_catalog
from registry_sync.catalog_changes import changes_between
from registry_sync.default_version import DefaultPolicy
from registry_sync.history import history_of
from registry_sync.history_file import HistoryFile
from registry_sync.records import RegisteredModel
from tests.support.catalogs import BREAKING, record, version


def _told(*looks: RegisteredModel) -> list[list[tuple[Any, ...]]]:
    """What is noted at each look, as event, alias, before and after."""
    before, told = None, []
    for look in looks:
        plan = build_catalog((look,), before, policy=DefaultPolicy())
        changes = changes_between(before, plan.catalog)
        noted = history_of(changes, before, plan.catalog, at=1.0)
        told.append([(e.event, e.alias, e.before, e.after) for e in noted])
        before = plan.catalog
    return told


def test_the_life_of_a_default_is_told() -> None:
    """Added, held, let in, rolled back by the alias, and fallen back when it is deleted."""
    one, two = version(1), version(2, BREAKING)
    let_in = version(2, BREAKING, accept_breaking=True)
    told = _told(
        record(one),
        record(one, two),
        record(one, let_in),
        record(one, let_in, aliases={"champion": 1}),
        record(one, let_in, aliases={"champion": 2}),
        record(one),
    )
    assert told == [
        [("added", None, None, 1)],
        [("held", None, 1, 2)],
        [("accepted", None, 1, 2)],
        [("alias", "champion", None, 1), ("rolled_back", None, 2, 1)],
        [("alias", "champion", 1, 2), ("accepted", None, 1, 2)],
        [("alias", "champion", 2, None), ("fell_back", None, 2, 1)],
    ]


def test_each_entry_says_why() -> None:
    """What was held says by what, and a default what made it one."""
    plan = build_catalog((record(version(1)),), None, policy=DefaultPolicy())
    (entry,) = history_of(changes_between(None, plan.catalog), None, plan.catalog, at=2.0)
    assert entry.why == "It was the newest version that is READY."
    assert (entry.at, entry.generation) == (2.0, plan.catalog.generation)


def _entry(number: int, model: str = "m") -> HistoryEntry:
    return HistoryEntry(at=number, model=model, event="default", after=number, generation=number)


def test_a_history_is_kept_and_bounded(tmp_path: Path) -> None:
    """The newest come first, of the model that was asked for, after a restart too; the oldest go
    where there is too much."""
    line = len(_entry(1).model_dump_json()) + 1
    kept = HistoryFile(tmp_path, max_bytes=10 * line)
    for number in range(1, 36):
        kept.append([_entry(number), _entry(number, "other")])
    again = HistoryFile(tmp_path, max_bytes=10 * line)
    assert [entry.after for entry in again.read("m", 3)] == [35, 34, 33]
    assert 5 <= len(again.read("m", 100)) <= 10
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 22 * line


def test_half_a_line_costs_nothing_else(tmp_path: Path) -> None:
    """What a crash left half written is skipped, and what follows it is whole."""
    kept = HistoryFile(tmp_path)
    kept.append([_entry(1)])
    with (tmp_path / "history.jsonl").open("ab") as file:
        file.write(b'{"at": 1, "mod')
    kept.append([_entry(2)])
    assert [entry.after for entry in kept.read("m", 10)] == [2, 1]


def test_a_folder_that_cannot_be_written_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Serving goes on without the entry."""
    (tmp_path / "file").write_text("")
    HistoryFile(tmp_path / "file").append([_entry(1)])
    assert "the history can't be written" in caplog.text


def test_models_that_go_are_noted() -> None:
    """A model that is gone from the registry says so last."""
    plan = build_catalog((record(version(1)),), None, policy=DefaultPolicy())
    nothing = build_catalog((), plan.catalog, policy=DefaultPolicy()).catalog
    changes = changes_between(plan.catalog, nothing)
    noted = history_of(changes, plan.catalog, nothing, at=1.0)
    assert [(e.event, e.before, e.after) for e in noted] == [("removed", 1, None)]
    assert isinstance(plan.catalog.models["m"], ServedModel)
