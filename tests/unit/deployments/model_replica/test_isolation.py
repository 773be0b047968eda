"""Who has a template of its own, and for how long; no process is started here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deployments.environments.planner import EnvironmentSettings
from deployments.model_process.artifacts import artifacts_folder
from deployments.model_replica.host_settings import HostSettings
from deployments.model_replica.isolation import CALM_S, Isolation
from deployments.model_replica.output_lines import OutputLines
from deployments.model_replica.processes import Process, Processes
from deployments.model_replica.start_methods import StartMethod
from deployments.model_replica.supervisor import Supervisor
from deployments.model_replica.version_process import VersionProcess
from tests.support.supervised import kept_by_use, version


def test_who_was_calm_for_long_enough_is_let_in_again() -> None:
    """Who is suspected once has to be calm for a time, in however many processes."""
    isolation = Isolation()
    assert not isolation.is_alone("v")
    isolation.suspect("v")
    isolation.was_calm("v", CALM_S / 2)
    assert isolation.is_alone("v")
    isolation.was_calm("v", CALM_S / 2)
    assert not isolation.is_alone("v")
    assert not isolation.is_alone("other")


def test_who_is_suspected_again_has_to_be_calm_for_twice_as_long() -> None:
    """So one that goes on killing templates takes its neighbours along less and less often, however
    long it is calm in between; and what is asked of it can't become too large a number."""
    isolation = Isolation()
    for nth in range(10):
        isolation.suspect("v")
        isolation.was_calm("v", CALM_S * 2**nth - 1.0)
        assert isolation.is_alone("v")
        isolation.was_calm("v", 1.0)
        assert not isolation.is_alone("v")
    for _ in range(2000):
        isolation.suspect("v")
    isolation.was_calm("v", 1e9)
    assert isolation.is_alone("v")


async def test_who_ends_in_the_moment_in_which_it_is_loaded_was_not_calm() -> None:
    """Before whoever waits for the load has seen that it is there: it hasn't been for long, and may
    have killed its template."""
    process = VersionProcess(version("v"), at_end=lambda _: None, at_lack=lambda *_: None)
    process._is_alone = True
    process._process = Process(process._hear, OutputLines("v", {}))
    process._process.heard({"event": "ready"})
    assert process.calm_s < 60.0
    process._process.lose_template()
    assert process.calm_s == 0.0
    assert process.may_have_killed_template


class Recorded(Processes):
    """Processes that are never started, and ready at once."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[tuple[Process, bool]] = []

    async def prepare(self, method: StartMethod) -> None:
        pass

    async def start(
        self,
        job: Any,
        method: StartMethod,
        *,
        hear: Callable[[dict[str, Any]], None],
        output: OutputLines,
        alone: bool = False,
    ) -> Process:
        process = Process(hear, output)
        self.started.append((process, alone))
        asyncio.get_running_loop().call_soon(hear, {"event": "ready"})
        return process


async def loaded(supervisor: Supervisor, starts: int, processes: Recorded) -> VersionProcess:
    """The version's process once it is in memory, which is that many a start."""
    deadline = time.monotonic() + 10.0
    while len(processes.started) < starts or not any(p.was_ready for p in supervisor.running):
        assert time.monotonic() < deadline, "it isn't loaded again"
        await asyncio.sleep(0.01)
    (process,) = supervisor.running
    return process


async def test_whose_template_was_killed_shares_one_again_after_it_was_calm(tmp_path: Path) -> None:
    """A version that had just been loaded when its template was killed has one of its own, and
    again where that is killed too; no longer once it has left it alone for long enough."""
    wanted = version("v")
    artifacts_folder(tmp_path, wanted.fingerprint).mkdir(parents=True)
    processes = Recorded()
    settings = HostSettings(
        tracking_uri="sqlite://",
        registry_uri="sqlite://",
        artifact_folder=str(tmp_path),
        max_loaded_versions=8,
        environments=EnvironmentSettings(folder=str(tmp_path / "environments"), mode="shared"),
    )
    supervisor = Supervisor(settings, keep=kept_by_use(8), processes=processes)
    try:
        await supervisor.load(wanted)
        for lost in (1, 2):
            await loaded(supervisor, lost, processes)
            process, _ = processes.started[-1]
            process.lose_template()
            process.gone()
        for ended, calm_s in ((3, CALM_S), (4, CALM_S + 1.0)):
            running = await loaded(supervisor, ended, processes)
            running.ready_at = time.monotonic() - calm_s
            process, _ = processes.started[-1]
            process.exited(9)
        await loaded(supervisor, 5, processes)
        assert [alone for _, alone in processes.started] == [False, True, True, True, False]
    finally:
        await supervisor.close()
