"""Templates, and the zygote that they are forked from: real processes and real models, no Ray."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from deployments.cluster.zygote import zygote
from tests.support.processes_of import command_of, is_alive
from tests.support.supervised import (
    MODEL,
    asked,
    save_code,
    supervised,
    until,
)

FRESH = """
import atexit, json, logging, os, random, signal, sys, threading
import numpy as np

def predict(rows):
    return [json.dumps({
        "pid": os.getpid(),
        "random": random.random(),
        "numpy": float(np.random.random()),
        "threads": threading.active_count(),
        "handlers": [
            signal.getsignal(s) is signal.SIG_DFL for s in (signal.SIGTERM, signal.SIGCHLD)
        ],
        "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "wakeup": signal.set_wakeup_fd(-1),
        "root_handlers": len(logging.getLogger().handlers),
        "leads": os.getpgrp() == os.getpid(),
        "main": threading.current_thread() is threading.main_thread(),
        "argv": sys.argv[1:],
        "stdin": sys.stdin.read() if sys.stdin else "",
        "open": sorted(
            os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{fd}")
        ),
    })] * len(rows)
"""


async def test_a_forked_process_is_as_good_as_a_fresh_one(tmp_path: Path) -> None:
    """Without a zygote, as on a cluster that is joined: forks of one template share no random
    state, threads, handlers or files with each other."""
    versions = [save_code(tmp_path, f"fresh{i}", FRESH) for i in range(3)]
    async with supervised(tmp_path) as supervisor:
        told = [json.loads((await asked(supervisor, v, [1.0]))[1][0]) for v in versions]
    assert len({each["pid"] for each in told}) == 3
    assert len({each["random"] for each in told}) == 3
    assert len({each["numpy"] for each in told}) == 3
    for each in told:
        assert each["threads"] == 1
        assert each["handlers"] == [True, True]
        assert each["interrupt"] is each["main"] is each["leads"] is True
        assert each["wakeup"] == -1
        assert each["root_handlers"] == 0
        assert each["argv"] == []
        assert each["stdin"] == ""
        # Its calls' socket, the supervisor's, one caller, its output, and the pair by which its
        # threads wake it; nobody else's.
        sockets = [name for name in each["open"] if name.startswith("socket:")]
        assert len(set(sockets)) <= 6


async def test_a_template_that_is_killed_is_replaced(base: str, tmp_path: Path) -> None:
    """Its processes end with it, and their versions answer again by themselves."""
    tells = "import os\ndef predict(rows): return [[os.getpid(), os.getppid()]] * len(rows)\n"
    version = save_code(tmp_path, "tells", tells)
    async with supervised(tmp_path, zygote=base) as supervisor:
        _, ((pid, template),) = await asked(supervisor, version, [1.0])
        os.kill(template, signal.SIGKILL)
        await until(lambda: not is_alive(pid))
        await until(lambda: supervisor.events.loaded == {MODEL: 0})
        await until(lambda: supervisor.events.loaded == {MODEL: 1}, timeout_s=30.0)
        _, ((_, other),) = await asked(supervisor, version, [1.0])
        assert other != template


async def test_templates_of_a_zygote_wait_for_no_imports(base: str, tmp_path: Path) -> None:
    """Two supervisors get templates of their own from one base, each of which ends with its
    supervisor, at once where nothing is being answered; a version's process is as good as any
    other."""
    told = []
    where = "import os\ndef predict(rows): return [[os.getpid(), os.getppid()]] * len(rows)\n"
    fresh, parent = save_code(tmp_path, "fresh", FRESH), save_code(tmp_path, "parent", where)
    for _ in range(2):
        async with supervised(tmp_path, zygote=base) as supervisor:
            told.append(json.loads((await asked(supervisor, fresh, [1.0]))[1][0]))
            _, (forks,) = await asked(supervisor, parent, [1.0])
            assert "zygote" in command_of(forks[1])
            closing_at = time.monotonic()
        assert time.monotonic() - closing_at < 10.0  # it waits 15 s for what doesn't end
        await until(lambda gone=forks: not any(map(is_alive, gone)))  # type: ignore[misc]
    assert len({each["numpy"] for each in told}) == 2
    for each in told:
        assert each["threads"] == 1
        assert each["handlers"] == [True, True]
        assert each["leads"] is each["main"] is True


@pytest.mark.parametrize("why", ["another environment", "it is gone"])
async def test_without_a_zygote_a_supervisor_imports_for_itself(tmp_path: Path, why: str) -> None:
    """Where its environment is another than the zygote's, or where there is none any more."""
    version = save_code(tmp_path, "v", "def predict(rows): return rows['x'] * 2\n")
    with zygote() as address, pytest.MonkeyPatch.context() as patching:
        if why == "another environment":
            patching.setenv("OMP_NUM_THREADS", "7")
            async with supervised(tmp_path, zygote=address) as supervisor:
                assert await asked(supervisor, version, [1.0]) == ("ok", [2.0])
    if why == "it is gone":
        async with supervised(tmp_path, zygote=address) as supervisor:
            assert await asked(supervisor, version, [1.0]) == ("ok", [2.0])
