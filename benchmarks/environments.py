"""Virtual environments of the contenders, made from their pinned requirements, once."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.paths import REQUIREMENTS, VENVS

Say = Callable[[str], None]

_MARK = ".requirements"


class CannotInstall(Exception):
    """A contender's environment could not be made."""


def interpreter(requirements: str | None, say: Say) -> Path:
    """The Python of an environment with these requirements, which is made where it isn't there.

    None is the environment that runs this. Raises CannotInstall.
    """
    if requirements is None:
        return Path(sys.executable)
    pinned = REQUIREMENTS / f"{requirements}.txt"
    folder = VENVS / requirements
    fingerprint = hashlib.sha256(pinned.read_bytes() + sys.version.encode()).hexdigest()
    mark = folder / _MARK
    if not mark.exists() or mark.read_text() != fingerprint:
        say(f"Installing {pinned.name} into {folder.name} (some minutes, once) …")
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", folder])
        _run([folder / "bin" / "python", "-m", "pip", "install", "--no-deps", "-r", pinned])
        mark.write_text(fingerprint)
    return folder / "bin" / "python"


def version_of(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """The versions of packages that are installed there; those that aren't are left out."""
    code = (
        "import sys, importlib.metadata as m\n"
        "for n in sys.argv[1:]:\n"
        "    try: print(n, m.version(n))\n"
        "    except m.PackageNotFoundError: pass"
    )
    output = subprocess.run(
        [python, "-c", code, *packages], check=True, capture_output=True, text=True
    ).stdout
    pairs = (line.split() for line in output.splitlines())
    return {name: version for name, version in pairs}  # noqa: C416


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotInstall(f"{done.stdout[-1000:]}\n{done.stderr[-2000:]}")
