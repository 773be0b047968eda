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
from deployments.model_replica.version_environments import (
    EnvironmentBuilding,
    VersionEnvironments,
)
from deployments.model_replica.version_process import VersionId


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


async def never_ends(*_: object, **__: object) -> Environment:
    await asyncio.Event().wait()
    raise AssertionError
