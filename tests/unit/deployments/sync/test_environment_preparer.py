"""What versions run in, found out and built ahead of requests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from deployments.environments.builder import BuildFailed
from deployments.environments.known_files import KnownFiles
from deployments.environments.model_needs import Needs
from deployments.environments.planner import EnvironmentSettings, Planner
from deployments.environments.satisfaction import GATEWAY_PYTHON, Installed
from deployments.sync.environment_preparer import (
    BUILT,
    LOOKED_AT,
    EnvironmentPreparer,
    _Planned,
)
from gateway.catalog import EnvironmentStatus, ServedModel
from registry_sync.records import RegistryUnreachable
from tests.support.catalogs import catalog, served, version
from tests.support.processes import poll

NOTHING: dict[str, str] = {"MLmodel": "flavors: {}"}
OTHERS = {**NOTHING, "requirements.txt": "nobody-has-this==1", "conda.yaml": "dependencies: []"}


class Files:
    """A version's files, as values."""

    def __init__(self, files: dict[str, str]) -> None:
        self._files = files

    def read(self, path: str) -> bytes | None:
        return self._files[path].encode() if path in self._files else None


class Registry:
    """What is registered, by model and number; where nothing is, the registry is away."""

    def __init__(self, **files: dict[str, str]) -> None:
        self.files = files
        self.asked: list[tuple[str, int]] = []

    def files_of(self, name: str, number: int) -> Any:
        self.asked.append((name, number))
        if name not in self.files:
            raise RegistryUnreachable("The registry is away.")
        return Files(self.files[name])


class Builds:
    """Takes the place of real builds: each waits until it is let go, and may fail."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.may_end = asyncio.Event()
        self.failure: BuildFailed | None = None

    async def __call__(
        self,
        needs: Needs,
        *,
        artifacts: Path | None = None,
        again: bool = False,
        ahead: bool = False,
    ) -> None:
        self.begun += [str(each) for each in needs.requirements]
        await self.may_end.wait()
        if self.failure is not None:
            raise self.failure


@asynccontextmanager
async def preparing(
    folder: Path, registry: Registry, builds: Callable[..., Any] | None = None, mode: Any = "auto"
) -> AsyncIterator[EnvironmentPreparer]:
    planner = Planner(EnvironmentSettings(folder=str(folder), mode=mode))
    if builds is not None:
        planner.builder.build = builds  # type: ignore[method-assign]

    async def changed() -> None:
        pass

    known = KnownFiles(folder / "needs")
    made = EnvironmentPreparer(planner, registry, known, max_bytes=10**12, changed=changed)
    try:
        yield made
    finally:
        await made.close()


def status(preparer: EnvironmentPreparer, name: str = "m", number: int = 1) -> EnvironmentStatus:
    return preparer.statuses[name][number]


async def told(preparer: EnvironmentPreparer, state: str, *, number: int = 1) -> None:
    """Until that is told of the version."""

    def is_so() -> bool:
        known = preparer.statuses.get("m", {}).get(number)
        return known is not None and known.state == state

    await asyncio.to_thread(poll, is_so, timeout_s=20.0, what=f"the state {state}")


def model(name: str = "m", **fields: Any) -> ServedModel:
    return served(version(1, fingerprint=f"{name}/1"), name=name, **fields)


async def test_a_version_is_a_problem_until_it_is_known_what_it_needs(tmp_path: Path) -> None:
    """And none once it is known that the gateway has it."""
    async with preparing(tmp_path, Registry(m=NOTHING)) as preparer:
        wanted = model()
        assert preparer.problem(wanted, wanted.versions[0]) == LOOKED_AT
        preparer.look(catalog(wanted))
        await preparer.settle(timeout_s=10.0)
        assert preparer.problem(wanted, wanted.versions[0]) is None
        assert (status(preparer).kind, status(preparer).state) == ("gateway", "ready")


async def test_what_is_asked_for_by_default_is_built_ahead(tmp_path: Path) -> None:
    """Older versions that nobody named aren't; the catalog says so of both."""
    builds, registry = Builds(), Registry(m=OTHERS)
    async with preparing(tmp_path, registry, builds) as preparer:
        old, new = version(1, fingerprint="m/1"), version(2, fingerprint="m/2")
        wanted = served(old, new, default=2)
        preparer.look(catalog(wanted))
        await told(preparer, "waiting", number=2)
        assert builds.begun == ["nobody-has-this==1"]
        assert preparer.problem(wanted, new) is not None
        builds.may_end.set()


async def test_a_version_that_nobody_asks_for_is_built_when_it_is_to_be_the_default(
    tmp_path: Path,
) -> None:
    """Until then it is a problem, though nothing is wrong with it."""
    builds = Builds()
    async with preparing(tmp_path, Registry(m=OTHERS, n=NOTHING), builds) as preparer:
        old, new = version(1, fingerprint="m/1"), version(2, None, fingerprint="m/2", problem="No.")
        wanted = served(new, old, default=2)
        preparer.look(catalog(wanted))
        await told(preparer, "missing")
        assert builds.begun == []
        assert preparer.problem(wanted, old) == BUILT
        builds.may_end.set()


async def test_a_build_that_failed_is_not_repeated_with_every_look(tmp_path: Path) -> None:
    """It is due again when the store says."""
    builds = Builds()
    builds.failure = BuildFailed("packages", "Its packages can't be installed.")
    builds.failure.retry_at = 4e9
    builds.may_end.set()
    async with preparing(tmp_path, Registry(m=OTHERS), builds) as preparer:
        for _ in range(3):
            preparer.look(catalog(model()))
            await preparer.settle(timeout_s=5.0)
        assert len(builds.begun) == 1


async def test_what_has_failed_is_told_as_failed_while_it_is_tried_again(tmp_path: Path) -> None:
    """By whatever process: alarms don't come and go with each try."""
    builds = Builds()
    builds.may_end.set()
    async with preparing(tmp_path, Registry(m=OTHERS), builds) as preparer:
        store = preparer._planner.builder.store
        preparer.look(catalog(model()))
        await preparer.settle(timeout_s=5.0)
        digest = status(preparer).key
        assert digest is not None
        lock = store.try_to_build(digest)
        assert lock is not None
        for failed, state in ((False, "building"), (True, "failed")):
            if failed:
                store.fail(digest, "packages", "No such package.", ["no nobody-has-this"])
            store.begin(digest)
            assert digest in store.building()
            preparer.look(catalog(model()))
            await told(preparer, state)
        assert status(preparer).lines == ("no nobody-has-this",)
        os.close(lock)


async def test_a_registry_that_is_away_is_asked_again_later(tmp_path: Path) -> None:
    """And until then the reason is told."""
    registry = Registry()
    async with preparing(tmp_path, registry) as preparer:
        for _ in range(2):
            preparer.look(catalog(model()))
            await preparer.settle(timeout_s=5.0)
        assert len(registry.asked) == 1
        told = status(preparer)
        assert told.state == "failed"
        assert told.reason == "What it needs can't be read: The registry is away."


async def test_what_nobody_foresaw_is_told_and_not_tried_again_in_every_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is the reading that fails or the build; other versions go on."""

    class Odd(Builds):
        async def __call__(self, *args: Any, **options: Any) -> None:
            self.begun.append("odd")
            raise AssertionError

    builds, registry = Odd(), Registry(m=OTHERS, n=NOTHING)
    monkeypatch.setattr(Files, "read", lambda self, path: path.encode().no_such)
    async with preparing(tmp_path / "read", registry) as preparer:
        for _ in range(3):
            preparer.look(catalog(model()))
            await preparer.settle(timeout_s=5.0)
        assert len(registry.asked) == 1
        assert status(preparer).reason == "What it needs can't be read."
    monkeypatch.undo()
    async with preparing(tmp_path / "built", registry, builds) as preparer:
        for _ in range(3):
            preparer.look(catalog(model(), model("n")))
            await preparer.settle(timeout_s=5.0)
        assert builds.begun == ["odd"]
        assert status(preparer, "n").state == "ready"


async def test_a_restart_needs_no_registry_that_answers(tmp_path: Path) -> None:
    """What a version needs was read once, and its files never change."""
    for registry in (Registry(m=NOTHING), Registry()):
        async with preparing(tmp_path, registry) as preparer:
            preparer.look(catalog(model()))
            await preparer.settle(timeout_s=5.0)
            assert status(preparer).state == "ready"


async def test_a_gateway_that_builds_nothing_has_no_problem(tmp_path: Path) -> None:
    """What a version lacks there is a warning."""
    async with preparing(tmp_path, Registry(m=OTHERS), mode="shared") as preparer:
        wanted = model()
        assert preparer.problem(wanted, wanted.versions[0]) is None
        preparer.look(catalog(wanted))
        await preparer.settle(timeout_s=5.0)
        assert status(preparer).kind == "gateway"
        assert "nobody-has-this==1" in (status(preparer).warning or "")


async def test_what_is_told_has_another_stamp_only_where_it_is_another(tmp_path: Path) -> None:
    """Readers are sent what they don't know."""
    async with preparing(tmp_path, Registry(m=NOTHING)) as preparer:
        preparer.look(catalog(model()))
        await preparer.settle(timeout_s=5.0)
        stamp = preparer.stamp
        assert stamp > 0
        preparer.look(catalog(model()))
        await preparer.settle(timeout_s=5.0)
        assert preparer.stamp == stamp
        preparer.look(catalog())
        await preparer.settle(timeout_s=5.0)
        assert preparer.stamp > stamp


@pytest.mark.parametrize("tag", ["own", "shared"])
async def test_a_tag_of_the_version_decides(tmp_path: Path, tag: Any) -> None:
    """`own` builds what the gateway has; `shared` builds nothing."""
    builds = Builds()
    builds.may_end.set()
    async with preparing(tmp_path, Registry(m=NOTHING), builds) as preparer:
        wanted = served(version(1, fingerprint="m/1", environment=tag))
        preparer.look(catalog(wanted))
        await preparer.settle(timeout_s=5.0)
        assert status(preparer).kind == {"own": "own", "shared": "gateway"}[tag]


async def test_what_was_seen_to_lack_something_gets_packages_of_its_own(tmp_path: Path) -> None:
    """A replica remembers what a version could not import that names the whole of MLflow."""
    files = {**NOTHING, "requirements.txt": "mlflow", "conda.yaml": "dependencies: []"}
    async with preparing(tmp_path, Registry(m=files), Builds()) as preparer:
        planner = preparer._planner
        planner._installed = Installed(
            python_minor=GATEWAY_PYTHON, versions={"mlflow-skinny": "99"}
        )
        preparer.look(catalog(model()))
        await told(preparer, "ready")
        assert status(preparer).kind == "gateway"
        (plan,) = preparer._plans.values()
        assert isinstance(plan, _Planned)
        assert planner.builder.store.lacking.add(str(plan.otherwise), "pyarrow")

        for _ in range(2):  # it is seen, and then looked at anew
            await preparer._refresh(all_of_them=True)
            preparer.look(catalog(model()))
            await preparer.settle(timeout_s=1)
        await told(preparer, "waiting")
        assert status(preparer).kind == "own"
        assert "imports pyarrow, which the gateway hasn't" in status(preparer).why
