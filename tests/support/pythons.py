"""Pythons of this machine, for models that need others than the tests' own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def python_of(minor: str) -> str | None:
    """The interpreter of that version, on the PATH or pyenv's; None where there is none."""
    found = shutil.which(f"python{minor}")
    if found is not None and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
        return found
    versions = Path.home() / ".pyenv" / "versions"
    return next(map(str, sorted(versions.glob(f"{minor}.*/bin/python"))), None)
