"""What versions lacked that were loaded with the gateway's packages, remembered on disk: all
processes that share a folder of environments give them one of their own from then on. Blocks.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from deployments.environments.whole_file import write_whole


class Lacking:
    """Modules that couldn't be imported, below a folder, one file each, by the digest of the
    environment that is to be had instead."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> Collection[str]:
        """The digests that something is known of."""
        try:
            return {path.stem for path in self._folder.iterdir()}
        except OSError:
            return ()

    def find(self, digest: str) -> str | None:
        """The module that was lacking; None where none was, or it can't be read."""
        try:
            module = json.loads(self._file(digest).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return module if isinstance(module, str) else None

    def add(self, digest: str, module: str) -> bool:
        """Remember one; whether the disk had room for it."""
        try:
            write_whole(self._file(digest), json.dumps(module))
        except OSError:
            return False
        return True

    def _file(self, digest: str) -> Path:
        return self._folder / f"{digest}.json"
