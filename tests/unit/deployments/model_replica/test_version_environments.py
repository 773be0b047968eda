"""Environments of their own that a supervisor's versions run in; no process is started here."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

import pytest

from deployments.environments.planner import EnvironmentSettings
from deployments.environments.satisfaction import GATEWAY_PYTHON, Installed
from deployments.environments.store import Environment, Hold, Store
from deployments.model_replica.processes import Processes
from deployments.model_replica.unavailable import building_now
from deployments.model_replica.version_environments import (
    EnvironmentBuilding,
    VersionEnvironments,
)
from deployments.model_replica.version_process import LoadFailed, VersionId


def environment(folder: Path, digest: str) -> Environment:
    return Environment(
        digest=digest,
        folder=folder / digest,
        python_version="3.11.7",
        size_bytes=1,
        build_s=1.0,
        built_at=0.0,
        used_at=0.0,
        requirements=(),
    )


def is_held(store: Store, digest: str) -> bool:
    """Whether somebody would be in the way of its end."""
    lock = store._lock(f"{digest}.used", fcntl.LOCK_EX | fcntl.LOCK_NB)
    if lock is not None:
        os.close(lock)
    return lock is None


async def test_where_memory_is_wanted_what_nobody_uses_is_let_go_at_once(tmp_path: Path) -> None:
    """Else its templates stay for a while, for a version that comes back; what is used stays."""
    store = Store(tmp_path)
    environments = VersionEnvironments(
        EnvironmentSettings(folder=str(tmp_path)), Processes(), linger_s=600.0
    )
    homes = {}
    for digest in ("used", "left"):
        lock = store._lock(f"{digest}.used", fcntl.LOCK_SH)
        assert lock is not None
        homes[digest] = environments._moved_in(Hold(environment(tmp_path, digest), lock))
    homes["left"].leave()
    assert is_held(store, "left")
    environments.close_unused()
    await asyncio.gather(*environments._closing)
    assert not is_held(store, "left")
    assert is_held(store, "used")
    assert environments.template_pids() == []
    await environments.close()


async def test_what_names_the_whole_of_mlflow_moves_for_what_it_lacked(tmp_path: Path) -> None:
    """From the gateway's packages, which have MLflow's client, into some of its own; nothing else
    that fails moves it, and it moves once."""
    environments = VersionEnvironments(
        EnvironmentSettings(folder=str(tmp_path / "kept")), Processes(), linger_s=0.0
    )
    planner = environments._planner
    planner._installed = Installed(python_minor=GATEWAY_PYTHON, versions={"mlflow-skinny": "99"})
    planner.builder.build = never_ends  # type: ignore[method-assign]
    (tmp_path / "requirements.txt").write_text("mlflow")
    (tmp_path / "conda.yaml").write_text("dependencies: []")
    wanted = VersionId(model="m", number=1, fingerprint="fingerprint")
    home = await environments.home(wanted, tmp_path)
    assert home.processes is environments._gateway
    assert home.may_be_another
    assert not await home.is_another_next(None)
    assert await home.is_another_next("pyarrow")
    with pytest.raises(EnvironmentBuilding):
        await environments.home(wanted, tmp_path)
    (tmp_path / "requirements.txt").write_text("mlflow-skinny")
    home = await environments.home(wanted, tmp_path)
    assert not await home.is_another_next("pyarrow")


async def test_what_cant_be_had_is_told_as_part_of_a_sentence(tmp_path: Path) -> None:
    """Callers are told it within one of ours, which has a full stop of its own."""
    environments = VersionEnvironments(EnvironmentSettings(folder=str(tmp_path)), Processes())
    (tmp_path / "conda.yaml").write_text("dependencies: []")
    (tmp_path / "requirements.txt").write_text("--target /")
    with pytest.raises(LoadFailed) as failed:
        await environments.home(VersionId(model="m", number=1, fingerprint="f"), tmp_path)
    assert failed.value.reason.startswith("what it says of its packages can't be taken: ")
    assert not failed.value.reason.endswith(".")


async def test_who_asks_is_told_what_it_waits_for(tmp_path: Path) -> None:
    """That others are built before it, or that it is built itself; and what came of the last
    try."""
    environments = VersionEnvironments(
        EnvironmentSettings(folder=str(tmp_path / "kept"), mode="own"), Processes()
    )
    builder = environments._planner.builder
    builder.build = never_ends  # type: ignore[method-assign]
    (tmp_path / "conda.yaml").write_text("dependencies: []")
    wanted = VersionId(model="m", number=1, fingerprint="f")

    async def told() -> str:
        with pytest.raises(EnvironmentBuilding) as building:
            await environments.home(wanted, tmp_path)
        return building_now(building.value).reason.replace("1 s so far", "0 s so far")

    assert await told() == "its environment waits for being built, for 0 s so far"
    (digest,) = environments._asked_at
    lock = builder.store.try_to_build(digest)
    assert lock is not None
    builder.store.begin(digest)
    assert await told() == "its environment is being built, for 0 s so far"
    lines = ["error: It is missing.", *map(str, range(9)), "cause: Nobody has it."]
    builder.store.fail(digest, "packages", "Its packages can't be installed.", lines)
    assert (await told()).endswith(
        "; the last time it couldn't be: its packages can't be installed: "
        "error: It is missing / 0 / 8 / cause: Nobody has it"
    )
    os.close(lock)


async def never_ends(*_: object, **__: object) -> Environment:
    await asyncio.Event().wait()
    raise AssertionError
