"""What versions lacked that were loaded with the gateway's packages, remembered on disk: all
processes that share a folder of environments give them one of their own from then on. Blocks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

from deployments.environments.whole_file import write_whole


class Lacking:
    """Modules that couldn't be imported, below a folder, one file each, by the `key_of` what lacked
    them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @staticmethod
    def key_of(fingerprint: str, digest: str) -> str:
        """The key of one version and the environment that it is to have instead: others that name
        the same packages may lack nothing."""
        return hashlib.sha256(f"{digest} {fingerprint}".encode()).hexdigest()[:32]

    def all(self) -> Collection[str]:
        """The keys that something is known of."""
        try:
            return {path.stem for path in self._folder.iterdir()}
        except OSError:
            return ()

    def find(self, key: str) -> str | None:
        """The module that was lacking; None where none was, or it can't be read."""
        try:
            module = json.loads(self._file(key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return module if isinstance(module, str) else None

    def add(self, key: str, module: str) -> bool:
        """Remember one; whether it is remembered now, which a disk may have no room for."""
        try:
            write_whole(self._file(key), json.dumps(module))
        except OSError:
            return False
        return self.find(key) is not None

    def _file(self, key: str) -> Path:
        return self._folder / f"{key}.json"
