"""The folder that environments are kept in, by their digests; several gateways may share it.

An environment is a folder `DIGEST` with a file `complete.json` in it, which is written last: what
lacks it is no environment, and whoever gets its lock removes it. It is built where it will be used,
since the scripts and the byte code in it name its path. Locks are the system's (flock), so they end
with the processes that have them: one for who builds, one shared by all who use it, one for each
build that may go on at once, one for each that takes long beside these, and one shared by those who
wait for what somebody asks for. Blocks.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.environments.failures import Cause, Failure, Failures
from deployments.environments.lacking import Lacking
from deployments.environments.whole_file import write_whole

_MARKER = "complete.json"
_USED = "used"
_LOCKS = ".locks"
_CACHE = ".cache"
_FAILED = ".failed"
_LACKING = ".lacking"
_TRASH = ".trash-"
_WORK = ".work-"
_BEGUN = "begun"


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """One that is complete. `size_bytes` counts what it shares with others too."""

    digest: str
    folder: Path
    python_version: str
    size_bytes: int
    build_s: float
    built_at: float
    used_at: float
    requirements: tuple[str, ...]

    @property
    def interpreter(self) -> str:
        """What runs in it."""
        return str(_interpreter(self.folder))


class Hold:
    """Keeps an environment from being pruned, by any gateway, until it is closed or the process
    ends."""

    def __init__(self, environment: Environment, descriptor: int) -> None:
        self.environment = environment
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        """Let it go: until now it was used."""
        if self._descriptor is not None:
            _touch(self.environment.folder)
            os.close(self._descriptor)
            self._descriptor = None


class Store:
    """The environments below a folder, which is made when something is put there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._failures = Failures(self.folder / _FAILED)
        self.lacking = Lacking(self.folder / _LACKING)

    @property
    def cache(self) -> Path:
        """Where uv keeps what it has fetched: on one file system with what is linked to it."""
        return self.folder / _CACHE

    def path(self, digest: str) -> Path:
        """Where the environment of that digest is, or will be."""
        return self.folder / digest

    def find(self, digest: str) -> Environment | None:
        """The environment, if it is complete and its Python is on this machine."""
        folder = self.path(digest)
        said = _said(folder)
        if said is None or not _interpreter(folder).exists():
            return None
        try:
            return Environment(
                digest=digest,
                folder=folder,
                python_version=str(said["python_version"]),
                size_bytes=int(said["size_bytes"]),
                build_s=float(said["build_s"]),
                built_at=float(said["built_at"]),
                used_at=_used_at(folder),
                requirements=tuple(map(str, said["requirements"])),
            )
        except (KeyError, TypeError, ValueError):
            return None

    def all(self) -> list[Environment]:
        """All that are complete, the least recently used first."""
        found = [self.find(path.name) for path in self._folders()]
        return sorted((each for each in found if each is not None), key=lambda each: each.used_at)

    def failure(self, digest: str) -> Failure | None:
        """Why it couldn't be built the last time; None where it was, or nobody has tried."""
        return self._failures.find(digest)

    def building(self) -> Mapping[str, float]:
        """What is being built, by whatever process, and since when (Unix time)."""
        found: dict[str, float] = {}
        with contextlib.suppress(OSError):
            for path in list(self.folder.glob(f"{_WORK}*")):
                digest = path.name.removeprefix(_WORK)
                with contextlib.suppress(FileNotFoundError):
                    begun_at = (path / _BEGUN).stat().st_mtime
                    if self._is_locked(digest):
                        found[digest] = begun_at
        return found

    def hold(self, digest: str) -> Hold | None:
        """Use an environment from now on; None where it isn't there."""
        descriptor = self._lock(f"{digest}.used", fcntl.LOCK_SH)
        assert descriptor is not None
        environment = self.find(digest)
        if environment is None:
            os.close(descriptor)
            return None
        _touch(environment.folder)
        return Hold(environment, descriptor)

    def try_to_build(self, digest: str) -> int | None:
        """The lock of who builds it, a descriptor to be closed; None while another has it."""
        return self._lock(f"{digest}.built", fcntl.LOCK_EX | fcntl.LOCK_NB)

    def try_for_slot(self, slots: int) -> int | None:
        """The lock of one who may build, of so many at once, a descriptor to be closed; None while
        all are taken."""
        for number in range(slots):
            lock = self._lock(f"slot.{number}", fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock is not None:
                return lock
        return None

    def slow_places(self, slots: int) -> list[int]:
        """Descriptors of the locks for builds that take long, of so many at once, none of them
        locked; to be closed."""
        places: list[int] = []
        try:
            places.extend(self._opened(f"slow.{number}") for number in range(slots))
        except OSError:
            for place in places:
                os.close(place)
            raise
        return places

    def be_first(self) -> int | None:
        """Have those who build ahead of requests wait, until the descriptor is closed; None where
        that can't be had in this moment."""
        return self._lock("first", fcntl.LOCK_SH | fcntl.LOCK_NB)

    def is_anybody_first(self) -> bool:
        """Whether somebody waits whose build is asked for, in whatever process."""
        lock = self._lock("first", fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock is not None:
            os.close(lock)
        return lock is None

    def begin(self, digest: str) -> Path | None:
        """Clear the place for a build, whose lock one has: a new folder for its papers; None
        where another process uses what is there."""
        if not self._remove(digest):
            return None
        work = self.folder / f"{_WORK}{digest}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(mode=0o700)
        (work / _BEGUN).touch()
        return work

    def end(self, digest: str) -> None:
        """Clear away what a build has left that didn't complete, and its papers."""
        shutil.rmtree(self.folder / f"{_WORK}{digest}", ignore_errors=True)
        if _said(self.path(digest)) is None:
            self._remove(digest)

    def complete(self, digest: str, said: dict[str, Any]) -> Environment:
        """The environment that has been built is one from now on; raises OSError."""
        folder = self.path(digest)
        (folder / _USED).touch()
        write_whole(folder / _MARKER, json.dumps(said))
        environment = self.find(digest)
        if environment is None:
            raise OSError("the environment isn't where it was built")
        self._failures.forget(digest)
        return environment

    def fail(self, digest: str, cause: Cause, reason: str, lines: Sequence[str]) -> Failure:
        """Remember that a build, whose lock one has, has failed."""
        return self._failures.add(digest, cause, reason, lines)

    def prune(
        self, max_bytes: int, in_use: Collection[str], *, clear_cache: Callable[[], object]
    ) -> list[Environment]:
        """Remove what counts for nothing, then, while all is larger than that, what uv keeps and
        the least recently used environments; never one in use, here or by another process. Those
        that were removed."""
        self._remove_leftovers()
        self._failures.remove_old()
        removed: list[Environment] = []
        if self.total_bytes() <= max_bytes:
            return removed
        clear_cache()
        taken = _Taken(self.folder)
        for environment in self.all():
            if taken.bytes <= max_bytes:
                break
            if environment.digest in in_use:
                continue
            files = list(_files_below(environment.folder))
            if self._remove_locked(environment.digest):
                removed.append(environment)
                taken.less(files)
        return removed

    def total_bytes(self) -> int:
        """What lies on the disk below the folder; what several share is counted once."""
        return _Taken(self.folder).bytes

    def _folders(self) -> Iterator[Path]:
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                if not path.name.startswith(".") and path.is_dir():
                    yield path

    def _remove_locked(self, digest: str) -> bool:
        lock = self.try_to_build(digest)
        if lock is None:
            return False
        try:
            return self._remove(digest)
        finally:
            os.close(lock)

    def _remove(self, digest: str) -> bool:
        """Remove it, in one step for who looks; False where somebody uses it."""
        lock = self._lock(f"{digest}.used", fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock is None:
            return False
        trash = self.folder / f"{_TRASH}{uuid.uuid4().hex}"
        try:
            self.path(digest).rename(trash)
        except FileNotFoundError:
            return True
        finally:
            os.close(lock)
        shutil.rmtree(trash, ignore_errors=True)
        return True

    def _remove_leftovers(self) -> None:
        """What was cut off: removals, and builds that nobody is at."""
        with contextlib.suppress(OSError):
            for path in list(self.folder.iterdir()):
                if path.name.startswith(_TRASH):
                    shutil.rmtree(path, ignore_errors=True)
                elif path.name.startswith(_WORK):
                    self._end_if_left(path.name.removeprefix(_WORK))
        for path in list(self._folders()):
            if _said(path) is None:
                self._end_if_left(path.name)

    def _end_if_left(self, digest: str) -> None:
        # The folder may be one that a user keeps other things in: who builds has a lock.
        locks = self.folder / _LOCKS
        if not locks.exists() or (locks.is_dir() and not (locks / f"{digest}.built").exists()):
            return
        lock = self.try_to_build(digest)
        if lock is not None:
            try:
                self.end(digest)
            finally:
                os.close(lock)

    def _is_locked(self, digest: str) -> bool:
        """Whether somebody builds it; two who ask are in nobody's way."""
        lock = self._lock(f"{digest}.built", fcntl.LOCK_SH | fcntl.LOCK_NB)
        if lock is not None:
            os.close(lock)
        return lock is None

    def _lock(self, name: str, how: int) -> int | None:
        descriptor = self._opened(name)
        try:
            is_had = try_lock(descriptor, how)
        except BaseException:
            os.close(descriptor)
            raise
        if not is_had:
            os.close(descriptor)
            return None
        return descriptor

    def _opened(self, name: str) -> int:
        locks = self.folder / _LOCKS
        locks.mkdir(parents=True, exist_ok=True)
        return os.open(locks / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


class _Taken:
    """What lies on the disk below a folder: its files are looked at once, however many of its
    environments go."""

    def __init__(self, folder: Path) -> None:
        self._links: dict[tuple[int, int], int] = {}
        self.bytes = 0
        for file, size in _files_below(folder):
            self.bytes += 0 if file in self._links else size
            self._links[file] = self._links.get(file, 0) + 1

    def less(self, files: Sequence[tuple[tuple[int, int], int]]) -> None:
        """Those are gone."""
        for file, size in files:
            left = self._links.get(file, 0) - 1
            if left == 0:
                self.bytes -= size
            self._links[file] = left


def _files_below(folder: Path) -> Iterator[tuple[tuple[int, int], int]]:
    """Each name of each file below: which file it is, and its size."""
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                status = os.lstat(os.path.join(where, name))
                yield (status.st_dev, status.st_ino), status.st_size


def try_lock(descriptor: int, how: int = fcntl.LOCK_EX | fcntl.LOCK_NB) -> bool:
    """Whether the lock of a descriptor is had now, also by the processes that it was given to."""
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        return False
    return True


def unlock(descriptor: int) -> None:
    """Let go of the lock, for all processes that have the descriptor."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def _interpreter(folder: Path) -> Path:
    return folder / "bin" / "python"


def _said(folder: Path) -> dict[str, Any] | None:
    """What the marker says; None where there is none."""
    try:
        said = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) else None


def _touch(folder: Path) -> None:
    with contextlib.suppress(OSError):
        (folder / _USED).touch()


def _used_at(folder: Path) -> float:
    try:
        return (folder / _USED).stat().st_mtime
    except OSError:
        return 0.0
