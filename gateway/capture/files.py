"""The folder of captured requests: `MODEL/DAY/TIME-WRITER-NUMBER.parquet`, here or behind a URL.

A file appears as a whole or not at all: it is written beside its place and renamed, or, in a store
of objects, put there in one piece. Its name has its writer's random id, so that no two ingress
replicas ever write the same. Days are UTC. What is behind a URL is fsspec's matter, which is
imported only there.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, unquote, urlsplit

# Of a name's bytes in a folder; file systems take 255.
_LONGEST_NAME = 180

# Where a file that is being written can be seen, and renaming is one act. All else is taken for a
# store of objects, which shows an object when it is whole.
_RENAMING = frozenset({"file", "local", "sftp", "ssh", "ftp", "smb", "hdfs", "webhdfs"})


class CaptureUnusable(Exception):
    """Nothing can be captured as it is set; the sentence is for people."""


class Store(Protocol):
    """Where files go."""

    def put(self, path: str, data: Any) -> None:
        """Have a file of these bytes at the path below the folder; raises whatever the store
        does."""

    def files_of(self, model: str) -> list[str]:
        """The paths of a model's files, the newest first."""

    def open(self, path: str) -> Any:
        """The file at one of these paths, for reading bytes."""


def store_at(url: str) -> Store:
    """The store that a folder's path or an fsspec URL names; raises CaptureUnusable."""
    parts = urlsplit(url)
    if len(parts.scheme) < 2:  # a path, perhaps with a drive's letter
        return LocalFolder(Path(url).expanduser().absolute())
    if parts.scheme == "file":
        return LocalFolder(Path(unquote(parts.path)))
    return RemoteFolder(url)


def require_arrow() -> None:
    """Raises CaptureUnusable where there is no PyArrow."""
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError:
        raise CaptureUnusable(
            "capture needs more packages: pip install 'modelmux[capture]'"
        ) from None
    pa.set_cpu_count(1)


def require_usable(url: str | None) -> None:
    """Raises CaptureUnusable where nothing can be kept there, which is fine where nothing is to."""
    if url is not None:
        require_arrow()
        store_at(url)


class LocalFolder:
    """A folder of a file system that is mounted here."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, path: str, data: Any) -> None:
        """See `Store.put`."""
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        except OSError:
            part.unlink(missing_ok=True)
            raise

    def files_of(self, model: str) -> list[str]:
        """See `Store.files_of`."""
        folder = self._folder / folder_of(model)
        found = sorted(folder.glob("*/[!.]*.parquet"), reverse=True)
        return [str(each.relative_to(self._folder)) for each in found]

    def open(self, path: str) -> Any:
        """See `Store.open`."""
        return (self._folder / path).open("rb")


class RemoteFolder:
    """A folder behind a URL, by fsspec."""

    def __init__(self, url: str) -> None:
        try:
            import fsspec

            self._files, self._folder = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            scheme = urlsplit(url).scheme
            raise CaptureUnusable(
                f"nothing here can write to {scheme}: addresses; install modelmux[capture], and "
                f"fsspec's package for {scheme}"
            ) from error
        protocol = self._files.protocol
        names = {protocol} if isinstance(protocol, str) else set(protocol)
        self._renames = not names.isdisjoint(_RENAMING)

    def put(self, path: str, data: Any) -> None:
        """See `Store.put`."""
        target = f"{self._folder}/{path}"
        if not self._renames:
            self._files.pipe_file(target, bytes(data))
            return
        folder, _, name = target.rpartition("/")
        self._files.makedirs(folder, exist_ok=True)
        part = f"{folder}/.{name}.part"
        self._files.pipe_file(part, bytes(data))
        self._files.mv(part, target)

    def files_of(self, model: str) -> list[str]:
        """See `Store.files_of`."""
        found = self._files.glob(f"{self._folder}/{_glob_escaped(folder_of(model))}/*/*.parquet")
        names = (str(each).removeprefix(f"{self._folder}/") for each in found)
        return sorted((n for n in names if "/." not in f"/{n}"), reverse=True)

    def open(self, path: str) -> Any:
        """See `Store.open`."""
        return self._files.open(f"{self._folder}/{path}", "rb")


def folder_of(model: str) -> str:
    """The name of a model's folder: its own, with what isn't plain percent-encoded, and cut where
    it is too long."""
    name = quote(model, safe="")
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(model.encode()).hexdigest()[:16]
    return f"{name[:_LONGEST_NAME]}~{digest}"


class FileNames:
    """Names that no other process gives, in their order."""

    def __init__(self) -> None:
        self._writer = os.urandom(6).hex()
        self._number = 0

    def next(self, model: str, day: str) -> str:
        """The path of a model's next file of a day."""
        self._number += 1
        now = time.strftime("%H%M%S", time.gmtime())
        return f"{folder_of(model)}/{day}/{now}-{self._writer}-{self._number:06d}.parquet"


def day_of(at_s: float) -> str:
    """The day of a moment in Unix time, in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(at_s))


def parquet(table: Any) -> Any:
    """A table as the bytes of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet

    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, compression="zstd")
    return sink.getvalue()


@contextmanager
def tables_of(file: Any) -> Iterator[Any]:
    """A `pyarrow.parquet.ParquetFile` over an open file, which is closed with it."""
    import pyarrow.parquet

    with file, pyarrow.parquet.ParquetFile(file) as parquet_file:
        yield parquet_file


def _glob_escaped(name: str) -> str:
    return "".join(f"[{each}]" if each in "*?[" else each for each in name)
