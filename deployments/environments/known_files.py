"""What versions' files said of their needs, kept on disk: a version's files never change, so a
gateway that is started again asks no store for them, and needs no registry that answers. Blocks.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from collections.abc import Callable, Collection
from pathlib import Path

from deployments.environments.whole_file import write_whole

Read = Callable[[str], bytes | None]
"""Gives a file's bytes by its path beside the MLmodel file; None where there is none."""


class KnownFiles:
    """Below a folder, one file per version, named by its fingerprint."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def reader(self, fingerprint: str, read: Read) -> Read:
        """Reads what is kept of a version, and the rest by `read`, to be kept from then on."""
        path = self._path(fingerprint)
        known = _kept(path)

        def read_once(name: str) -> bytes | None:
            if name not in known:
                known[name] = read(name)
                self._keep(path, known)
            return known[name]

        return read_once

    def forget_all_but(self, fingerprints: Collection[str]) -> None:
        """Remove what is kept of versions that are gone."""
        there = {self._path(each).name for each in fingerprints}
        with contextlib.suppress(OSError):
            for path in list(self._folder.iterdir()):
                if path.name not in there:
                    path.unlink(missing_ok=True)

    def _path(self, fingerprint: str) -> Path:
        return self._folder / f"{hashlib.sha256(fingerprint.encode()).hexdigest()[:32]}.json"

    def _keep(self, path: Path, known: dict[str, bytes | None]) -> None:
        """In one step; a disk that is full costs another reading and nothing else."""
        text = {name: None if each is None else _text(each) for name, each in known.items()}
        with contextlib.suppress(OSError):
            write_whole(path, json.dumps(text))


def _kept(path: Path) -> dict[str, bytes | None]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: None if each is None else base64.b64decode(each, validate=True)
            for name, each in kept.items()
        }
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
