"""A template that is killed, by a model or by a system without memory: a supervisor with real
processes, no Ray."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from deployments.model_replica.supervisor import Supervisor
from deployments.model_replica.version_process import VersionId
from tests.support.processes_of import command_of, is_alive
from tests.support.supervised import asked, save_code, supervised, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux' /proc")

# In its group, in a session of its own, and one that has left its parent as daemons do.
LEAVES = """
import os, subprocess, sys, time
left = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid]
left.append(subprocess.Popen(["sleep", "600"], start_new_session=True).pid)
reading, writing = os.pipe()
if os.fork() == 0:
    os.setsid()
    daemon = os.fork()
    if daemon:
        os.write(writing, str(daemon).encode())
        os._exit(0)
    os.execv("/bin/sleep", ["sleep", "600"])
left.append(int(os.read(reading, 20)))
def predict(rows): return [[os.getpid(), os.getppid(), *left]] * len(rows)
"""

KILLS = """
import os, signal
def predict(rows): return list(rows["x"])
with open({loads!r}, "a") as loads: loads.write("x")
os.kill(os.getppid(), signal.SIGKILL)
"""

TELLS = "import os\ndef predict(rows): return [os.getpid()] * len(rows)\n"


async def answered(supervisor: Supervisor, version: VersionId) -> Any:
    """What the version answers, once a call isn't lost with a process."""
    deadline = time.monotonic() + 30.0
    while True:
        outcome, answer = await asked(supervisor, version, [1.0])
        if outcome == "ok":
            return answer
        assert outcome == "lost"
        assert time.monotonic() < deadline


@pytest.mark.parametrize("forked", [True, False], ids=["of a zygote", "alone"])
async def test_nothing_outlives_a_template_that_is_killed(
    base: str, tmp_path: Path, forked: bool
) -> None:
    """Killed with SIGKILL it takes along its models and all that they have started, wherever that
    has gone; the version answers again."""
    version = save_code(tmp_path, "leaves", LEAVES)
    pids: list[int] = []
    async with supervised(tmp_path, zygote=base if forked else None) as supervisor:
        try:
            ((pid, template, *left),) = await answered(supervisor, version)
            pids = [pid, template, *left]
            assert all(map(is_alive, pids))
            assert ("zygote" in command_of(template)) is forked
            os.kill(template, signal.SIGKILL)
            await until(lambda: not any(map(is_alive, pids)), timeout_s=15.0)
            ((again, *_),) = await answered(supervisor, version)
            assert again != pid
        finally:
            for each in pids:
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)


async def test_who_kills_its_template_gets_one_of_its_own(base: str, tmp_path: Path) -> None:
    """A model that kills its parent whenever it is loaded costs the others one restart, not one
    with each of its own."""
    loads = tmp_path / "loads"
    tells = save_code(tmp_path, "tells", TELLS)
    kills = save_code(tmp_path, "kills", KILLS.format(loads=str(loads)))
    async with supervised(tmp_path, zygote=base) as supervisor:
        (first,) = await answered(supervisor, tells)
        await supervisor.load(kills)
        await until(lambda: not is_alive(first), timeout_s=15.0)
        (second,) = await answered(supervisor, tells)
        before = loads.stat().st_size
        for n in range(1, 4):
            await supervisor.load(kills)  # where it isn't tried again by itself
            await until(lambda n=n: loads.stat().st_size >= before + n, timeout_s=60.0)  # type: ignore[misc]
        assert await answered(supervisor, tells) == [second]
