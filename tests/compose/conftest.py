"""The composed stack, built and run for real; skipped where there is no Docker engine.

Not part of `make test` (`norecursedirs` in pyproject.toml): `make compose-test` runs it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.stack import Stack


def _compose_command() -> list[str] | None:
    """`docker compose` where that is there, else docker-compose."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and not _fails([*command, "version"]):
            return command
    return None


def _fails(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode != 0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack with volumes and ports of its own, built and up; gone at the end, volumes too."""
    if shutil.which("docker") is None or _fails(["docker", "info"]):
        pytest.skip("no Docker engine answers here")
    command = _compose_command()
    if command is None:
        pytest.skip("there is neither `docker compose` nor docker-compose here")
    folder: Path = tmp_path_factory.mktemp("compose")
    made = Stack(command, folder)
    made.compose("build")
    try:
        made.up()
        yield made
    finally:
        made.compose("down", "--volumes", "--remove-orphans")
