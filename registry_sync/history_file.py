"""The history of all models on disk: a line of JSON for each entry, appended, in two files that
take turns. Blocks.

A line that can't be read (half of one, after a crash) is skipped. A folder that can't be written
costs the entry and a warning: serving goes on.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from gateway.history import HistoryEntry

_logger = logging.getLogger(__name__)

_MAX_BYTES = 8 * 1024 * 1024


class HistoryFile:
    """Keeps the history of models in a folder, in at most twice `max_bytes`."""

    def __init__(self, folder: Path, *, max_bytes: int = _MAX_BYTES) -> None:
        self._path = folder / "history.jsonl"
        self._older = folder / "history.1.jsonl"
        self._max_bytes = max_bytes
        self._lock = threading.Lock()

    def append(self, entries: Sequence[HistoryEntry]) -> None:
        """Add what happened; the oldest goes where there is too much."""
        if not entries:
            return
        lines = b"".join(entry.model_dump_json().encode() + b"\n" for entry in entries)
        try:
            with self._lock:
                self._write(lines)
        except OSError as error:
            _logger.warning("the history can't be written to %s: %s", self._path, error.strerror)

    def _write(self, lines: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        size = self._path.stat().st_size if self._path.exists() else 0
        if size and size + len(lines) > self._max_bytes:
            os.replace(self._path, self._older)
            size = 0
        with self._path.open("ab") as file:
            # A crash may have left half a line: what follows begins one of its own.
            if size and not _ends_a_line(self._path):
                file.write(b"\n")
            file.write(lines)

    def read(self, model: str, limit: int) -> list[HistoryEntry]:
        """The last `limit` entries of a model, the newest first."""
        with self._lock:
            found = [
                entry
                for path in (self._older, self._path)
                for entry in _entries(_lines(path))
                if entry.model == model
            ]
        return found[: -limit - 1 : -1]


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines()
    except OSError:
        return []


def _entries(lines: Iterable[bytes]) -> Iterator[HistoryEntry]:
    for line in lines:
        try:
            yield HistoryEntry.model_validate_json(line)
        except ValidationError:
            continue
