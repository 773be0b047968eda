"""Pythons of this machine, for models that need others than the tests' own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


def python_of(minor: str) -> str | None:
    """The interpreter of that version, on the PATH or pyenv's; None where there is none."""
    if minor == "{}.{}".format(*sys.version_info):
        return sys.executable
    found = shutil.which(f"python{minor}")
    if found is not None and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
        return found
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    return next(map(str, sorted(root.glob(f"versions/{minor}.*/bin/python"))), None)
