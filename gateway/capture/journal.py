"""Takes what is captured off the path of requests: a bounded queue and two threads behind it.

The event loop appends a reference and is done. One thread makes tables of what has come, many
requests at a time, so that what requests refer to is let go within moments; the other one writes
files of these, once they are large or old enough, however long the store takes. What there is no
room for is dropped, what can't be written is lost; both are counted, and said in the log once in a
while.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Literal

from gateway.attempt import Attempt
from gateway.capture.columns import Shape
from gateway.capture.files import FileNames, Store, day_of, parquet, require_arrow
from gateway.capture.kept import Kept
from gateway.catalog import Catalog, Resolution
from gateway.errors import InvalidModelOutput

_logger = logging.getLogger(__name__)

Outcome = Literal["written", "dropped", "lost"]

_MOST_WAITING = 8192
_AT_ONCE = 256
_MOMENT_S = 0.25
_MOST_SHAPES = 512
_TELL_EVERY_S = 60.0

# What makes no table: PyArrow's errors are ValueErrors, TypeErrors and the like.
_UNFIT = (ValueError, TypeError, KeyError, OverflowError, RecursionError, InvalidModelOutput)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureLimits:
    """When a file is written: at so many bytes in memory, or so many seconds after its first row;
    and how many bytes may wait in memory in all."""

    file_bytes: int = 16 * 1024 * 1024
    file_age_s: float = 300.0
    buffer_bytes: int = 64 * 1024 * 1024


@dataclass(slots=True)
class _File:
    """What is to be one file: tables alike, of one model and day."""

    model: str
    day: str
    since_s: float
    tables: list[Any] = field(default_factory=list)
    requests: int = 0
    size_bytes: int = 0


class CaptureJournal:
    """Keeps requests in a store; raises CaptureUnusable where PyArrow is missing.

    `note` is for the event loop and never waits; all else may be called anywhere.
    """

    def __init__(self, store: Store, limits: CaptureLimits | None = None) -> None:
        require_arrow()
        self._store = store
        self._limits = limits or CaptureLimits()
        self._names = FileNames()
        self._waiting: deque[Kept] = deque()
        self._noted_bytes = self._taken_bytes = 0  # each written by one thread alone
        self._shapes: dict[tuple[object, ...], Shape] = {}
        self._open: dict[tuple[str, str, Shape], _File] = {}
        self._full: SimpleQueue[_File | None] = SimpleQueue()
        self._held_bytes = 0
        self._outcomes: Counter[tuple[str, Outcome]] = Counter()
        self._told_at_s: dict[Outcome, float] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._is_closing = False
        self._threads = [
            threading.Thread(target=run, daemon=True, name=f"capture-{name}")
            for name, run in (("tables", self._make_tables), ("files", self._write_files))
        ]
        for thread in self._threads:
            thread.start()

    def note(self, kept: Kept) -> None:
        """Keep a request that has ended, if there is room."""
        room = self._limits.buffer_bytes - (self._noted_bytes - self._taken_bytes)
        if kept.size_bytes > room or len(self._waiting) >= _MOST_WAITING or self._is_closing:
            self._count(kept.resolution.model.name, "dropped", 1)
            return
        self._noted_bytes += kept.size_bytes
        self._waiting.append(kept)

    def close(self, timeout_s: float) -> None:
        """Write what there is, within so many seconds; blocks."""
        give_up_at = time.monotonic() + timeout_s
        self._is_closing = True
        self._wake.set()
        for thread in self._threads:
            thread.join(max(0.0, give_up_at - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            _logger.warning("captured requests could not all be written before the end")

    def outcomes(self, catalog: Catalog | None) -> dict[tuple[str, Outcome], int]:
        """How many requests of each model were written, dropped and lost; of those in the
        catalog."""
        with self._lock:
            counted = dict(self._outcomes)
        models = {} if catalog is None else catalog.models
        return {key: count for key, count in counted.items() if key[0] in models}

    def _make_tables(self) -> None:
        while True:
            self._wake.wait(_MOMENT_S)
            closing = self._is_closing
            while batch := self._taken():
                # Whatever is wrong with what was kept, the next must be taken.
                with Attempt(_logger, "captured requests are lost") as attempt:
                    self._add(batch)
                if attempt.has_failed:
                    self._count_lost(batch)
                del batch
            self._hand_over(everything=closing)
            if closing:
                self._full.put(None)
                return

    def _taken(self) -> list[Kept]:
        batch: list[Kept] = []
        while self._waiting and len(batch) < _AT_ONCE:
            batch.append(self._waiting.popleft())
        self._taken_bytes += sum(each.size_bytes for each in batch)
        return batch

    def _add(self, batch: Sequence[Kept]) -> None:
        alike: dict[tuple[str, str, Shape], list[Kept]] = {}
        for kept in batch:
            resolution = kept.resolution
            key = (resolution.model.name, day_of(kept.at_s), self._shape_of(resolution))
            alike.setdefault(key, []).append(kept)
        for key, group in alike.items():
            for table, requests in self._tables(key[2], group):
                self._add_table(key, table, requests)
        self._hand_over(everything=False)

    def _shape_of(self, resolution: Resolution) -> Shape:
        """One for all requests of a version by a contract: what is alike is one object."""
        model, version, contract = resolution.model, resolution.version, resolution.contract
        key = (model.name, version.fingerprint, id(contract), model.options.capture_drop)
        shape = self._shapes.get(key)
        if shape is None:
            if len(self._shapes) >= _MOST_SHAPES:
                self._shapes.clear()
            shape = self._shapes[key] = Shape(resolution)
        return shape

    def _tables(self, shape: Shape, group: Sequence[Kept]) -> Iterable[tuple[Any, int]]:
        """The table of these requests, or that of each, where one of them fits in none."""
        try:
            yield shape.table(group), len(group)
        except _UNFIT as error:
            if len(group) == 1:
                self._count(group[0].resolution.model.name, "lost", 1, error)
                return
            for each in group:
                yield from self._tables(shape, [each])

    def _add_table(self, key: tuple[str, str, Shape], table: Any, requests: int) -> None:
        size = table.nbytes
        with self._lock:
            fits = self._held_bytes + size <= self._limits.buffer_bytes
            if fits:
                self._held_bytes += size
        if not fits:
            self._count(key[0], "dropped", requests)
            return
        file = self._open.get(key)
        if file is None:
            file = self._open[key] = _File(key[0], key[1], time.monotonic())
        file.tables.append(table)
        file.requests += requests
        file.size_bytes += size

    def _hand_over(self, *, everything: bool) -> None:
        """What is large or old enough, and all where little room is left."""
        now = time.monotonic()
        limits = self._limits
        open_bytes = sum(file.size_bytes for file in self._open.values())
        everything = everything or open_bytes > limits.buffer_bytes // 2
        for key, file in list(self._open.items()):
            is_due = now - file.since_s >= limits.file_age_s or file.size_bytes >= limits.file_bytes
            if everything or is_due:
                self._full.put(self._open.pop(key))

    def _write_files(self) -> None:
        while (file := self._full.get()) is not None:
            self._write(file)
            with self._lock:
                self._held_bytes -= file.size_bytes

    def _write(self, file: _File) -> None:
        import pyarrow as pa

        try:
            data = parquet(pa.concat_tables(file.tables))
            self._store.put(self._names.next(file.model, file.day), data)
        # A boundary: each store raises what its own library does.
        except Exception as error:  # noqa: BLE001 - counted, and said without its text
            self._count(file.model, "lost", file.requests, error)
        else:
            self._count(file.model, "written", file.requests)

    def _count_lost(self, batch: Sequence[Kept]) -> None:
        for kept in batch:
            self._count(kept.resolution.model.name, "lost", 1)

    def _count(
        self, model: str, outcome: Outcome, requests: int, why: Exception | None = None
    ) -> None:
        now = time.monotonic()
        with self._lock:
            self._outcomes[model, outcome] += requests
            tells = outcome != "written" and now >= self._told_at_s.get(outcome, 0.0)
            if tells:
                self._told_at_s[outcome] = now + _TELL_EVERY_S
        if tells:
            self._tell(model, outcome, why)

    def _tell(self, model: str, outcome: Outcome, why: Exception | None) -> None:
        """Once in a while, without what an exception says of callers' values."""
        if outcome == "dropped":
            _logger.warning("captured requests of %s are dropped: there are too many", model)
            return
        reason = "" if why is None else getattr(why, "strerror", None) or type(why).__name__
        _logger.warning("captured requests of %s can't be written and are lost: %s", model, reason)
