"""What is kept of versions' files."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.environments.known_files import KnownFiles


class Store:
    """Files as values, and which were asked for."""

    def __init__(self, **files: bytes) -> None:
        self.files = files
        self.asked: list[str] = []

    def read(self, path: str) -> bytes | None:
        self.asked.append(path)
        return self.files.get(path)


def unasked(path: str) -> bytes | None:
    raise AssertionError(f"{path} is read again")


def test_each_file_is_read_once_over_restarts(tmp_path: Path) -> None:
    """What isn't there is known, too."""
    store = Store(MLmodel=b"flavors: {}\xff")
    read = KnownFiles(tmp_path / "known").reader("f", store.read)
    assert (read("MLmodel"), read("MLmodel"), read("absent")) == (b"flavors: {}\xff",) * 2 + (None,)
    assert store.asked == ["MLmodel", "absent"]
    again = KnownFiles(tmp_path / "known").reader("f", unasked)
    assert (again("MLmodel"), again("absent")) == (b"flavors: {}\xff", None)


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"MLmodel": 5}', b'{"MLmodel": "%"}', b"\xff"])
def test_what_is_damaged_is_read_anew(tmp_path: Path, damage: bytes) -> None:
    """It is what a gateway of another release or a full disk left."""
    known = KnownFiles(tmp_path)
    known.reader("f", Store(MLmodel=b"first").read)("MLmodel")
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage)
    assert known.reader("f", Store(MLmodel=b"second").read)("MLmodel") == b"second"


def test_what_is_gone_is_forgotten(tmp_path: Path) -> None:
    """The folder doesn't grow with all that ever was registered."""
    known = KnownFiles(tmp_path)
    for fingerprint in ("f", "g"):
        known.reader(fingerprint, Store(MLmodel=b"x").read)("MLmodel")
    known.forget_all_but({"g"})
    assert known.reader("g", unasked)("MLmodel") == b"x"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_written_costs_readings_alone(tmp_path: Path) -> None:
    """The answers are the same."""
    (tmp_path / "known").write_text("a file in the way")
    read = KnownFiles(tmp_path / "known").reader("f", Store(MLmodel=b"x").read)
    assert read("MLmodel") == b"x"
