"""What versions are to run in, as `modelmux environments` finds out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from deployments.cli.environment_plans import Version, plans_of
from deployments.environments.known_files import KnownFiles
from deployments.environments.planner import EnvironmentSettings, Planner
from registry_sync.source import MlflowRegistry
from tests.support.catalogs import version

FILES = {"conda.yaml": b"dependencies: []", "requirements.txt": b"zoopkg==1.0.0"}


class Registry:
    """Whose store counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def files_of(self, name: str, number: int) -> Any:
        self.asked.append(f"{name} {number}")
        return self

    def read(self, path: str) -> bytes | None:
        return FILES.get(path)


async def test_files_that_are_known_arent_fetched_again(tmp_path: Path) -> None:
    """A version's never change: neither for the gateway nor for another look at the list."""
    planner = Planner(EnvironmentSettings(folder=str(tmp_path / "environments")))
    registry = Registry()
    wanted = [Version(model="m", record=version(1), tag=None)]
    for _ in range(2):
        known = KnownFiles(tmp_path / "needs")
        (plan,) = await plans_of(planner, cast(MlflowRegistry, registry), wanted, known)
        assert plan.digest is not None
        assert registry.asked == ["m 1"]
