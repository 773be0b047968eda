"""The files of a registered version, one by one: never the weights, unless they are asked for.

Where they lie is the registry's to say (`MlflowRegistry.files_of`). Owns the reading of artifact
stores, by what every one of MLflow's repositories implements, and the translation of all that they
may raise into `FilesUnreadable`. Blocks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

_MAX_READ_BYTES = 16 * 1024 * 1024

# Artifacts that the tracking server itself hands out (its `--artifacts-destination`).
_SERVED_BY_TRACKING = "mlflow-artifacts:/"


class FilesUnreadable(Exception):
    """A version's files can't be had from their store; the sentence is meant for people and holds
    no secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    is_folder: bool
    size_bytes: int | None


class ArtifactStores:
    """Opens the folders that versions' files are in."""

    def __init__(self, *, tracking_uri: str, registry_uri: str) -> None:
        self._tracking_uri = tracking_uri
        self._registry_uri = registry_uri
        self._tracked: ArtifactRepository | None = None

    def open(self, root: str) -> VersionFiles:
        """The files below a URI of MLflow's; raises FilesUnreadable.

        All that a tracking server keeps is one repository: each new one would first ask the
        server what it is capable of.
        """
        if not root.startswith(_SERVED_BY_TRACKING) or root.startswith(f"{_SERVED_BY_TRACKING}/"):
            return VersionFiles(self._new_repository(root))
        if self._tracked is None:
            self._tracked = self._new_repository(_SERVED_BY_TRACKING)
        return VersionFiles(self._tracked, below=root.removeprefix(_SERVED_BY_TRACKING).strip("/"))

    def _new_repository(self, root: str) -> ArtifactRepository:
        with _told("Its artifact store can't be opened"):
            return get_artifact_repository(
                root, tracking_uri=self._tracking_uri, registry_uri=self._registry_uri
            )


class VersionFiles:
    """The files of one version, `below` a folder of a repository. Paths are relative to the
    MLmodel file's folder, with slashes.

    Files of a version never change, so each folder is listed and each file read once.
    """

    def __init__(self, repository: ArtifactRepository, *, below: str = "") -> None:
        self._repository = repository
        self._below = below
        self._listed: dict[str, Mapping[str, _Entry]] = {}
        self._read: dict[str, bytes] = {}

    def read(self, path: str) -> bytes | None:
        """A file's bytes; None where there is none of that path. Raises FilesUnreadable, also for
        one that is too large to be read into memory."""
        if path in self._read:
            return self._read[path]
        entry = self._entry(path)
        if entry is None or entry.is_folder:
            return None
        if entry.size_bytes is not None and entry.size_bytes > _MAX_READ_BYTES:
            raise FilesUnreadable(f"Its file {path} is larger than {_MAX_READ_BYTES:,} bytes.")
        return self.read_known(path)

    def read_known(self, path: str) -> bytes:
        """The bytes of a file that must be there, in one request; raises FilesUnreadable."""
        if path not in self._read:
            with tempfile.TemporaryDirectory(prefix="modelmux-") as folder:
                local = Path(folder) / "file"
                self._download(path, local)
                self._read[path] = local.read_bytes()
        return self._read[path]

    def fetch(self, paths: Iterable[str], into: Path) -> None:
        """Bring files into a folder, under their paths, and of folders the files that are directly
        in them; what isn't there is left out. Raises FilesUnreadable, OSError."""
        for path in paths:
            entry = self._entry(path)
            if entry is None:
                continue
            if not entry.is_folder:
                self._fetch_file(path, into)
                continue
            for name, inner in self._listing(path).items():
                if not inner.is_folder:
                    self._fetch_file(_joined(path, name), into)

    def _fetch_file(self, path: str, into: Path) -> None:
        local = into / path
        local.parent.mkdir(parents=True, exist_ok=True)
        self._download(path, local)

    def _download(self, path: str, local: Path) -> None:
        with _told(f"Its file {path} can't be read from the artifact store"):
            # What every repository implements, and one request. `download_artifacts` would list
            # the path first, to find out whether it is a folder, and draw a progress bar.
            remote = _joined(self._below, path)
            self._repository._download_file(remote, str(local))  # type: ignore[no-untyped-call]

    def _entry(self, path: str) -> _Entry | None:
        """What is at a path; looked for from above, since what isn't there can't be listed."""
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts:
            return None
        entry = _Entry(is_folder=True, size_bytes=None)
        above = ""
        for name in pure.parts:
            found = self._listing(above).get(name) if entry.is_folder else None
            if found is None:
                return None
            entry, above = found, _joined(above, name)
        return entry

    def _listing(self, folder: str) -> Mapping[str, _Entry]:
        if folder not in self._listed:
            with _told("Its files can't be listed in the artifact store"):
                listed = self._repository.list_artifacts(_joined(self._below, folder) or None)
                self._listed[folder] = {
                    PurePosixPath(each.path).name: _Entry(
                        is_folder=bool(each.is_dir), size_bytes=each.file_size
                    )
                    for each in listed
                }
        return self._listed[folder]


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    # The boundary to artifact stores: each has its client, with exceptions of its own.
    except Exception as error:
        raise FilesUnreadable(f"{what} ({type(error).__name__}).") from error


def _joined(folder: str, path: str) -> str:
    return f"{folder}/{path}" if folder and path else folder or path
