"""What went wrong with the versions of a model, kept where a process that dies can't take it along.

Each process that runs the model's code has a small file of its own, mapped into memory, that says
which versions it is loading or calling at this moment. The system keeps what was written there
however the process ends, so the next one reads who was at work when it died. From that, and from
what fails or hangs, comes which versions are not tried for a while (docs/decisions/0018).

Travels to the replica by value with `deployments.model_replica.versions` and imports nothing of
ours."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import logging
import mmap
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

_logger = logging.getLogger("modelmux.version_record")

LOAD, CALL = "load", "call"
"""What a version may be at: being put into memory, or answering."""

STRIKES = 3
"""How often a version may be at work when its process ends, or hang, before it is suspended: a
process that others killed twice in a row must not cost its version anything."""

# For how long a strike counts, in seconds. What others killed can't be told from what killed
# itself, so a call's end is soon forgotten; a load is rare. A call that hung costs its version's
# neighbours their process: what is rarer than this they can bear.
_STRIKE_S = {LOAD: 600.0, CALL: 60.0}

_MOST_DOUBLINGS = 3
_REFRESH_S = 1.0

_SLOTS, _SLOT_BYTES = 128, 64
_IDLE, _STATES = 0, {LOAD: ord("L"), CALL: ord("C")}
_KINDS = {state: kind for kind, state in _STATES.items()}
_HISTORY, _PARTIAL, _LOCK, _MARKS = "history.json", ".history", ".lock", ".marks"


@dataclasses.dataclass(kw_only=True)
class _Trouble:
    """What is known against one version: times are of the system's clock, in seconds.

    `strikes` and `hangs` (of calls) are when each ceases to count; `suspensions` how often in a row
    it was suspended, for failures of `kind`, the last time until `until`.
    """

    strikes: list[float] = dataclasses.field(default_factory=list)
    hangs: list[float] = dataclasses.field(default_factory=list)
    suspensions: int = 0
    kind: str = LOAD
    until: float = 0.0


class VersionRecord:
    """The record of one model's versions, shared by the processes of this machine that serve it.

    `retry_after_s` is how long a version is suspended the first time; it doubles with each time in
    a row, up to eight times as long. Where `folder` can't be written the record is of this process
    alone.
    """

    def __init__(
        self, folder: Path, *, retry_after_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._retry_after_s = retry_after_s
        self._clock = clock
        self._troubles: dict[str, _Trouble] = {}
        self._marks: _Marks | None = None
        self._refreshed_at = 0.0
        self._seen: tuple[int, int] | None = None
        self._one_thread = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._marks = _Marks(folder)
        except OSError as error:
            _logger.warning("what kills a process won't be remembered: %s", error)
        self.refresh()

    def begin(self, key: str, kind: str) -> None:
        """The version is at work from now on; quick."""
        if self._marks is not None:
            self._marks.set(key, _STATES[kind])

    def end(self, key: str) -> None:
        """The version is at work no more; quick."""
        if self._marks is not None:
            self._marks.set(key, _IDLE)

    def suspended_for_s(self, key: str) -> float:
        """How long the version is not to be tried, in seconds; 0 where it may be."""
        trouble = self._troubles.get(key)
        return 0.0 if trouble is None else max(0.0, trouble.until - self._clock())

    def suspended_for(self, key: str) -> str:
        """What a version that is suspended went wrong at: `LOAD` or `CALL`."""
        trouble = self._troubles.get(key)
        return LOAD if trouble is None else trouble.kind

    def is_suspect(self, key: str) -> bool:
        """Whether the version may be what ends its processes: it had better work alone."""
        trouble = self._troubles.get(key)
        if trouble is None:
            return False
        now = self._clock()
        return bool(trouble.suspensions) or any(
            at > now for at in (*trouble.strikes, *trouble.hangs)
        )

    def failed(self, key: str) -> float:
        """A load of the version failed: for how many seconds it is not to be tried now."""
        with self._changing():
            self._suspend(self._trouble(key), LOAD)
        return self.suspended_for_s(key)

    def hung(self, key: str, kind: str) -> None:
        """The version didn't come to an end, and its process is about to end for that."""
        with self._changing():
            trouble = self._trouble(key)
            if kind == LOAD:
                self._suspend(trouble, LOAD)
            else:
                trouble.hangs.append(self._clock() + _STRIKE_S[CALL])
                self._judge(trouble, CALL)
        if self._marks is not None:
            self._marks.close()

    def succeeded(self, key: str, kind: str) -> None:
        """The version was loaded or has answered: what it was suspended for is over; quick.

        An answer also takes back what hung before it: those were single requests. It says nothing
        about who ended a process.
        """
        trouble = self._troubles.get(key)
        if trouble is None:
            return
        if trouble.suspensions and kind in (trouble.kind, CALL):
            with self._changing():
                self._troubles.pop(key, None)
        elif trouble.hangs and kind == CALL:
            with self._changing():
                self._trouble(key).hangs = []

    def refresh(self) -> None:
        """Read what other processes have written, and what those that died were at; quick, because
        it looks once a second at most."""
        now = time.monotonic()
        if self._marks is None or now - self._refreshed_at < _REFRESH_S:
            return
        self._refreshed_at = now
        with contextlib.suppress(OSError):
            self._judge_the_dead()
            self._read_news()

    def _judge_the_dead(self) -> None:
        assert self._marks is not None
        died_at_work = [work for path in self._marks.others() if (work := _taken_from(path))]
        if not died_at_work:
            return
        with self._changing():
            for at_work in died_at_work:
                # Suspects work one at a time: where one of them was at work, it was that one.
                suspects = [key for key in at_work if self.is_suspect(key)]
                for key in suspects or at_work:
                    kind, trouble = at_work[key], self._trouble(key)
                    _logger.error("a process ended in a %s of version %s", kind, key)
                    trouble.strikes.append(self._clock() + _STRIKE_S[kind])
                    self._judge(trouble, kind)

    def _judge(self, trouble: _Trouble, kind: str) -> None:
        """Suspend the version if what has just happened at that was once too often."""
        now = self._clock()
        trouble.strikes = [at for at in trouble.strikes if at > now]
        trouble.hangs = [at for at in trouble.hangs if at > now]
        if trouble.suspensions or len(trouble.strikes) + len(trouble.hangs) >= STRIKES:
            self._suspend(trouble, kind)

    def _suspend(self, trouble: _Trouble, kind: str) -> None:
        doublings = min(trouble.suspensions, _MOST_DOUBLINGS)
        trouble.suspensions += 1
        trouble.strikes, trouble.hangs = [], []
        trouble.kind = kind
        trouble.until = self._clock() + self._retry_after_s * 2**doublings

    def _trouble(self, key: str) -> _Trouble:
        return self._troubles.setdefault(key, _Trouble())

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Change what all processes know, one at a time; without a disk, what this one does."""
        with self._one_thread, contextlib.ExitStack() as held:
            with _kept_from_failing():
                lock = held.enter_context((self._folder / _LOCK).open("w"))
                fcntl.lockf(lock, fcntl.LOCK_EX)
                self._read_news()
            yield
            with _kept_from_failing():
                self._write()

    def _read_news(self) -> None:
        """Read what others have written; what couldn't be written here is kept until then."""
        found = _identity(self._folder / _HISTORY)
        if found is None or found == self._seen:
            return
        self._seen = found
        text = (self._folder / _HISTORY).read_text(encoding="utf-8")
        with contextlib.suppress(ValueError, TypeError):  # of another release
            self._troubles = {key: _Trouble(**known) for key, known in json.loads(text).items()}

    def _write(self) -> None:
        document = {key: dataclasses.asdict(each) for key, each in self._troubles.items()}
        # By one at a time, so that the file beside it needs no name of its own.
        partial = self._folder / _PARTIAL
        partial.write_text(json.dumps(document), encoding="utf-8")
        os.replace(partial, self._folder / _HISTORY)
        self._seen = _identity(self._folder / _HISTORY)


class _Marks:
    """What this process is at: a file in memory of fixed slots, each a state and a version's key.

    The file is locked for as long as the process lives. POSIX locks belong to a process and not to
    what it forks, so a child of the model's doesn't keep a dead process's file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=".new-")
        self._file: IO[bytes] = os.fdopen(descriptor, "r+b")
        # On a disk that is full this fails, where writing to the memory would kill the process.
        os.posix_fallocate(descriptor, 0, _SLOTS * _SLOT_BYTES)
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        self._path = Path(name + _MARKS)  # others see it once it is locked
        os.rename(name, self._path)
        self._memory = mmap.mmap(descriptor, _SLOTS * _SLOT_BYTES)
        self._slots: dict[str, int] = {}
        self._taking_a_slot = threading.Lock()

    def set(self, key: str, state: int) -> None:
        """Write a version's state."""
        slot = self._slots.get(key)
        if slot is None:
            with self._taking_a_slot:
                slot = self._slots.get(key)
                if slot is None:  # no other thread was faster
                    slot = self._take_slot(key)
        self._memory[slot] = state

    def _take_slot(self, key: str) -> int:
        slot = len(self._slots) * _SLOT_BYTES
        if slot >= _SLOTS * _SLOT_BYTES:
            # Many versions came and went: one that is idle makes room.
            idle = next((k for k, at in self._slots.items() if self._memory[at] == _IDLE), key)
            slot = self._slots.pop(idle, 0)
        text = key.encode()[: _SLOT_BYTES - 1]
        self._memory[slot : slot + _SLOT_BYTES] = bytes([_IDLE]) + text.ljust(
            _SLOT_BYTES - 1, b"\0"
        )
        self._slots[key] = slot
        return slot

    def others(self) -> list[Path]:
        """The files of other processes, alive or dead; never opened where they are our own, since
        to close a file gives up its lock."""
        with os.scandir(self._folder) as entries:
            names = [entry.path for entry in entries if entry.name.endswith(_MARKS)]
        return [path for path in map(Path, names) if path != self._path]

    def close(self) -> None:
        """This process ends, and what it was at is nobody's fault."""
        self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def _kept_from_failing() -> Iterator[None]:
    """Without a disk the record is of this process alone."""
    try:
        yield
    except OSError as error:
        _logger.warning("the record of versions can't be kept: %s", error)


def _taken_from(path: Path) -> dict[str, str]:
    """What the process of that file was at when it died; nothing while it lives. Only once."""
    try:
        with path.open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            content = file.read()
            path.unlink()
    except OSError:  # it lives, or another was faster
        return {}
    slots = (content[at : at + _SLOT_BYTES] for at in range(0, len(content), _SLOT_BYTES))
    return {slot[1:].rstrip(b"\0").decode(): _KINDS[slot[0]] for slot in slots if slot[0] in _KINDS}


def _identity(path: Path) -> tuple[int, int] | None:
    """Changes whenever the file is replaced."""
    try:
        found: Any = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns)
