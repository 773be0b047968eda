"""Plans and builds the environments of versions on one machine: what the sync service does ahead of
requests, and a model's replica when it loads.

Asyncio only.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from deployments.environments.builder import Builder, BuildSettings
from deployments.environments.choice import (
    Choice,
    as_it_lacked,
    choose,
    mode_of,
    on_another_python,
)
from deployments.environments.interpreters import LEAST_PYTHON
from deployments.environments.lacking import Lacking
from deployments.environments.model_needs import Needs, read_needs
from deployments.environments.satisfaction import GATEWAY_PYTHON, Installed
from deployments.environments.store import Environment, Store
from deployments.settings import Settings
from gateway.catalog import EnvironmentMode

# More than is taken of any file.
_MAX_READ_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentSettings:
    """Where environments are kept, and which are made: `mode` where no tag says otherwise."""

    folder: str
    mode: EnvironmentMode = "auto"
    builds: BuildSettings = field(default_factory=BuildSettings)
    may_download_pythons: bool = False


class OwnFiles(Protocol):
    """The files of a version."""

    def fetch(self, paths: Iterable[str], into: Path) -> None:
        """Bring files, and those in folders, into a folder, under their paths."""


def environment_settings(settings: Settings) -> EnvironmentSettings:
    """What a gateway's settings say of environments."""
    return EnvironmentSettings(
        folder=str(settings.environments_folder),
        mode=settings.environment,
        builds=BuildSettings(
            most_at_once=settings.environment_builds_at_once,
            timeout_s=settings.environment_build_timeout_s,
            max_bytes=settings.max_environment_bytes,
            wheels_only=settings.environment_wheels_only,
        ),
        may_download_pythons=settings.environment_python_downloads,
    )


class Planner:
    """Environments of versions on this machine; its `builder` is to be closed on its event loop."""

    def __init__(self, settings: EnvironmentSettings) -> None:
        self._settings = settings
        self._installed = Installed.here()
        self.builder = Builder(
            Store(Path(settings.folder)),
            settings=settings.builds,
            gateway_mlflow=importlib.metadata.version("mlflow-skinny"),
            environment=os.environ,
            may_download_pythons=settings.may_download_pythons,
        )

    def builds_nothing(self, tag: EnvironmentMode | None) -> bool:
        """Whether a version with that tag has the gateway's environment, whatever it needs."""
        mode = self._settings.mode
        return tag != "own" if mode == "shared" else (tag or mode) == "shared"

    async def plan(
        self,
        read: Callable[[str], bytes | None],
        *,
        fingerprint: str,
        tag: EnvironmentMode | None,
    ) -> Choice:
        """The environment of a version whose files `read` reads (see `read_needs`), and whose mode
        is said by a tag where it has one; raises NoEnvironment."""
        mode = mode_of(tag, self._settings.mode)
        needs = await asyncio.to_thread(
            read_needs, read, gateway_python=GATEWAY_PYTHON, source=fingerprint
        )
        choice = choose(needs, mode, self._installed)
        if choice.otherwise is not None:
            return await asyncio.to_thread(
                self._as_it_was_seen, choice, self.key_of_lacking(fingerprint, choice.otherwise)
            )
        if choice.needs is None or mode == "own":
            return choice
        minor = choice.needs.python_minor
        if minor >= LEAST_PYTHON and await self.builder.interpreters.find(minor) is not None:
            return choice
        return on_another_python(choice, GATEWAY_PYTHON, least=LEAST_PYTHON)

    def key_of_lacking(self, fingerprint: str, otherwise: Needs) -> str:
        """By what it is remembered that a version lacked something (see `Lacking`)."""
        return Lacking.key_of(fingerprint, self.builder.digest(otherwise))

    def _as_it_was_seen(self, choice: Choice, key: str) -> Choice:
        lacked = self.builder.store.lacking.find(key)
        return choice if lacked is None else as_it_lacked(choice, lacked)

    async def build(
        self,
        needs: Needs,
        files: Callable[[], OwnFiles],
        *,
        again: bool = False,
        ahead: bool = False,
    ) -> Environment:
        """The environment that meets the needs, built where it isn't there (see `Builder.build`)
        with those of the version's own files that it takes. `files` gives these, in a thread.

        Raises BuildFailed, OSError, and what `files` and they raise.
        """
        with tempfile.TemporaryDirectory(prefix="modelmux-") as name:
            folder = Path(name) if needs.source else None
            if folder is not None:
                found = await asyncio.to_thread(files)
                await asyncio.to_thread(found.fetch, (*needs.files, *needs.folders), folder)
            return await self.builder.build(needs, artifacts=folder, again=again, ahead=ahead)


def files_below(folder: Path) -> Callable[[str], bytes | None]:
    """Reads files of a version that lie below a folder, and nothing outside of it."""
    root = folder.resolve()

    def read(path: str) -> bytes | None:
        file = (root / path).resolve()
        if not file.is_relative_to(root) or not file.is_file():
            return None
        with file.open("rb") as opened:
            return opened.read(_MAX_READ_BYTES)

    return read
