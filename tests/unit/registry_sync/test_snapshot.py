"""The catalog on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry_sync.snapshot import Restored, SnapshotStore
from tests.support.catalogs import BREAKING, catalog, served, version

CATALOG = catalog(served(version(1), version(2, BREAKING), default=1), generation=7)
LOADED = frozenset({"f1"})


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    """A snapshot gives back the same catalog (models, contract, generation) and what was
    loaded."""
    store = SnapshotStore(tmp_path / "new" / "folder", registry="r")
    store.save(CATALOG, LOADED)
    assert store.load() == Restored(catalog=CATALOG, loaded=LOADED)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 99}', b"\xff\xfe"])
def test_a_broken_snapshot_counts_as_none(tmp_path: Path, content: bytes) -> None:
    """Whatever is in the file, loading it never fails."""
    (tmp_path / "catalog.json").write_bytes(content)
    assert SnapshotStore(tmp_path, registry="r").load() is None


def test_a_snapshot_of_another_registry_counts_as_none(tmp_path: Path) -> None:
    """A state folder that is used for another registry doesn't serve the first one's models."""
    SnapshotStore(tmp_path, registry="one").save(CATALOG, LOADED)
    assert SnapshotStore(tmp_path, registry="other").load() is None


def test_a_folder_that_cannot_be_written_is_survived_and_told(tmp_path: Path) -> None:
    """Serving goes on where no snapshot can be kept; the problem is over when one can."""
    in_the_way = tmp_path / "file"
    in_the_way.write_text("in the way")
    store = SnapshotStore(in_the_way, registry="r")
    store.save(CATALOG, LOADED)
    assert store.load() is None
    assert store.problem is not None
    assert str(in_the_way) in store.problem
    in_the_way.unlink()
    store.save(CATALOG, LOADED)
    assert store.problem is None
    assert store.load() == Restored(catalog=CATALOG, loaded=LOADED)


def test_saving_leaves_nothing_beside_the_snapshot(tmp_path: Path) -> None:
    """The temporary file is renamed, not left."""
    SnapshotStore(tmp_path, registry="r").save(CATALOG, LOADED)
    assert [path.name for path in tmp_path.iterdir()] == ["catalog.json"]


def test_a_snapshot_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    """Which versions were loaded isn't in it, and then isn't known."""
    store = SnapshotStore(tmp_path, registry="r")
    store.save(CATALOG, LOADED)
    file = tmp_path / "catalog.json"
    content = json.loads(file.read_bytes())
    del content["loaded"]
    for field in ("created_at_ms", "not_started", "load_problems", "environments"):
        del content["catalog"]["models"]["m"][field]
    file.write_text(json.dumps(content))
    assert store.load() == Restored(catalog=CATALOG)
