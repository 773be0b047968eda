"""Environments of their own that a supervisor's versions run in; no process is started here."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

from deployments.environments.planner import EnvironmentSettings
from deployments.environments.store import Environment, Hold, Store
from deployments.model_replica.processes import Processes
from deployments.model_replica.version_environments import VersionEnvironments


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
