"""The Pythons that environments can be made with: the gateway's own, uv's, pyenv's, and those on
the PATH. Asyncio only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deployments.environments.model_needs import Minor

_logger = logging.getLogger("modelmux.environments")

LEAST_PYTHON: Minor = (3, 8)
"""The oldest Python that a model's process runs in."""

_PROBE_S = 10.0
_LIST_S = 30.0
_INSTALL_S = 600.0
_DOWNLOAD_AGAIN_S = 300.0
# A build without the lock of its threads isn't what packages have wheels for.
_PROBE = (
    "import sys,sysconfig;print(sys.implementation.name,*sys.version_info[:3],"
    "int(bool(sysconfig.get_config_var('Py_GIL_DISABLED'))))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """A Python of this machine."""

    path: str
    version: tuple[int, int, int]


class Interpreters:
    """Finds Pythons, and has uv download them where that is allowed.

    `environment` is what uv and they are started with; of it PATH, HOME and PYENV_ROOT are looked
    at. `uv` is the program.
    """

    def __init__(
        self,
        *,
        uv: str,
        environment: Mapping[str, str],
        may_download: bool = False,
        own: str = sys.executable,
    ) -> None:
        self._uv = uv
        self._environment = dict(environment)
        self._may_download = may_download
        self._own = own
        self._found: dict[Minor, Interpreter] = {}
        self._not_before: dict[Minor, float] = {}

    async def find(self, minor: Minor) -> Interpreter | None:
        """A Python of that minor, any patch of it; None where there is none to be had."""
        known = self._found.get(minor)
        if known is not None and os.access(known.path, os.X_OK):
            return known
        found = await self._first_of(self._local(minor), minor)
        if found is None:
            found = await self._first_of(await self._managed(minor), minor)
        if found is None and self._may_download and await self._download(minor):
            found = await self._first_of(await self._managed(minor), minor)
        if found is not None:
            self._found[minor] = found
        return found

    async def _first_of(self, paths: Sequence[str], minor: Minor) -> Interpreter | None:
        for path in paths:
            version = await self._probe(path)
            if version is not None and version[:2] == minor:
                return Interpreter(path=path, version=version)
        return None

    def _local(self, minor: Minor) -> list[str]:
        own = [self._own] if minor == sys.version_info[:2] else []
        return [*own, *self._of_pyenv(minor), *self._on_path(minor)]

    def _of_pyenv(self, minor: Minor) -> Iterator[str]:
        home = self._environment.get("HOME", "")
        root = Path(self._environment.get("PYENV_ROOT") or Path(home) / ".pyenv")
        there = {path: _patch(path.name, minor) for path in _entries(root / "versions")}
        patches = {path: patch for path, patch in there.items() if patch is not None}
        for path in sorted(patches, key=patches.__getitem__, reverse=True):
            yield str(path / "bin" / "python")

    def _on_path(self, minor: Minor) -> Iterator[str]:
        for folder in self._environment.get("PATH", "").split(os.pathsep):
            path = Path(folder) / "python{}.{}".format(*minor)
            if folder.startswith("/") and os.access(path, os.X_OK):
                yield str(path)

    async def _managed(self, minor: Minor) -> list[str]:
        """Those that uv has downloaded. It isn't let look at the PATH: it would start all there."""
        output = await self._output(
            [self._uv, "python", "list", "--managed-python", "--only-installed", "--offline",
             "--no-config", "--output-format", "json"],
            timeout_s=_LIST_S,
            PATH="",
        )  # fmt: skip
        try:
            listed = json.loads(output or b"[]")
            return [
                each["path"]
                for each in listed
                if each["path"] and each["version"].startswith("{}.{}.".format(*minor))
            ]
        except (ValueError, KeyError, TypeError):
            _logger.warning("the list of uv's Pythons can't be read")
            return []

    async def _download(self, minor: Minor) -> bool:
        # Where it can't be had, every version that needs it would wait for it to fail again.
        if time.monotonic() < self._not_before.get(minor, 0.0):
            return False
        command = [self._uv, "python", "install", "--no-bin", "--no-progress",
                   "{}.{}".format(*minor)]  # fmt: skip
        is_there = await self._output(command, timeout_s=_INSTALL_S) is not None
        if not is_there:
            self._not_before[minor] = time.monotonic() + _DOWNLOAD_AGAIN_S
            _logger.warning("Python %s.%s can't be downloaded", *minor)
        return is_there

    async def _probe(self, path: str) -> tuple[int, int, int] | None:
        output = await self._output([path, "-I", "-S", "-c", _PROBE], timeout_s=_PROBE_S)
        try:
            name, *numbers = (output or b"").decode("ascii").split()
            major, minor, patch, is_free_threaded = map(int, numbers)
        except ValueError:
            return None
        if name != "cpython" or is_free_threaded:
            return None
        return major, minor, patch

    async def _output(
        self, command: Sequence[str], *, timeout_s: float, **variables: str
    ) -> bytes | None:
        """What a command says; None where it fails or takes too long."""
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={**self._environment, **variables},
                cwd="/",
                start_new_session=True,
            )
        except OSError:
            return None
        try:
            async with asyncio.timeout(timeout_s):
                output, _ = await process.communicate()
        except TimeoutError:
            return None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
                await process.wait()
        return output if process.returncode == 0 else None


def _patch(name: str, minor: Minor) -> int | None:
    """The patch of a release of that minor: 13 of "3.10.13"; None for anything else."""
    prefix = "{}.{}.".format(*minor)
    rest = name.removeprefix(prefix)
    return int(rest) if name.startswith(prefix) and rest.isdigit() else None


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
