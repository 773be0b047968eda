"""A version's process, and the supervisor over it: real processes and real models, no Ray."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deployments.environments.satisfaction import GATEWAY_PYTHON, Installed
from deployments.environments.store import Environment
from deployments.model_replica import supervisor as supervisors
from deployments.model_replica.supervisor import GRACE_S
from tests.support.processes_of import is_alive
from tests.support.supervised import (
    MODEL,
    asked,
    save_code,
    supervised,
    until,
)

PREDICT = "def predict(rows): return rows['x'] * {factor}\n"


async def test_load_and_predict_run_in_the_main_thread(base: str, tmp_path: Path) -> None:
    """A model may set a signal handler at load, ask for the event loop, and run one in a call."""
    main = save_code(
        tmp_path,
        "main",
        """
        import asyncio, signal, threading, warnings
        signal.signal(signal.SIGUSR1, lambda *_: None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
            assert asyncio.get_event_loop() is loop
        loaded_in = threading.current_thread()

        async def doubled(rows):
            return rows["x"] * 2

        def predict(rows):
            assert threading.current_thread() is threading.main_thread() is loaded_in
            return asyncio.run(doubled(rows))
        """,
    )
    async with supervised(tmp_path, zygote=base) as supervisor:
        assert await asked(supervisor, main, [1.0, 2.0]) == ("ok", [2.0, 4.0])


async def test_loads_of_different_versions_run_side_by_side(base: str, tmp_path: Path) -> None:
    """A version is loaded and asked while another one's load goes on."""
    slow = save_code(tmp_path, "slow", "import time\ntime.sleep(3)\n" + PREDICT.format(factor=2))
    quick = save_code(tmp_path, "quick", PREDICT.format(factor=3))
    async with supervised(tmp_path, zygote=base) as supervisor:
        await supervisor.load(quick)  # so that the template has its imports done
        later = save_code(tmp_path, "later", PREDICT.format(factor=5))
        loading = asyncio.create_task(supervisor.load(slow))
        await asyncio.sleep(0)
        assert await asked(supervisor, later, [1.0]) == ("ok", [5.0])
        assert not loading.done()
        assert await loading == ("ok", None)


async def test_versions_that_ship_code_of_one_name_answer_each_by_its_own(
    base: str, tmp_path: Path
) -> None:
    """Two versions import a module of the same name from their own folders, side by side."""
    code = "from factors import FACTOR\ndef predict(rows): return rows['x'] * FACTOR\n"
    versions = [
        save_code(tmp_path, f"v{factor}", code, modules={"factors": f"FACTOR = {factor}\n"})
        for factor in (2, 7)
    ]
    async with supervised(tmp_path, zygote=base) as supervisor:
        for each, factor in zip(versions, (2.0, 7.0), strict=True):
            assert await asked(supervisor, each, [1.0]) == ("ok", [factor])


async def test_an_evicted_version_s_process_ends(base: str, tmp_path: Path) -> None:
    """Where there is no room for one more, the process of the least recently used is gone."""
    tells = "import os\ndef predict(rows): return [os.getpid()] * len(rows)\n"
    first, second = (save_code(tmp_path, name, tells) for name in ("first", "second"))
    async with supervised(tmp_path, zygote=base, most_versions=1) as supervisor:
        _, (pid,) = await asked(supervisor, first, [1.0])
        _, (other,) = await asked(supervisor, second, [1.0])
        await until(lambda: not is_alive(pid))
        assert is_alive(other)
        assert supervisor.events.loaded == {MODEL: 1}
        kinds = [event[0] for event in supervisor.events.untold()["events"]]
        assert kinds == ["ok", "ok", "evicted"]


LEAVES = """
import os, subprocess, sys, threading, time

def forked(work):
    pid = os.fork()
    if pid:
        return pid
    work()
    time.sleep(600)
    os._exit(0)

def detached():
    os.setsid()
    if os.fork():
        os._exit(0)

threading.Thread(target=time.sleep, args=(600,)).start()
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
left = [
    subprocess.Popen(sleep).pid,
    subprocess.Popen(sleep, start_new_session=True).pid,
    forked(lambda: None),
    forked(os.setsid),
]
forked(detached)

def predict(rows):
    return [[os.getpid(), *left]] * len(rows)
"""


async def test_what_a_model_leaves_behind_ends_with_its_process(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that never end, and children in the process's group, in sessions of their own and
    detached from it, which have what it had open: when it is evicted, and when it is killed."""
    monkeypatch.setattr(supervisors, "_FINISH_S", 2.0)  # its thread goes on: it is waited for
    leaves, other = save_code(tmp_path, "leaves", LEAVES), save_code(tmp_path, "other", LEAVES)
    async with supervised(tmp_path, zygote=base, most_versions=1) as supervisor:
        _, (pids,) = await asked(supervisor, leaves, [1.0])
        template = parent_of(pids[0])
        os.kill(pids[0], signal.SIGKILL)
        await until(lambda: not any(map(is_alive, pids)))
        await until(lambda: supervisor.events.loaded == {MODEL: 0})
        await until(lambda: supervisor.events.loaded == {MODEL: 1})
        _, (again,) = await asked(supervisor, leaves, [1.0])
        _, (others,) = await asked(supervisor, other, [1.0])
        await until(lambda: not any(map(is_alive, again)), timeout_s=20.0)
        assert all(map(is_alive, others))
        await until(lambda: len(children_of(template)) == 1)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


async def test_a_child_that_comes_back_from_a_call_answers_nobody(
    base: str, tmp_path: Path
) -> None:
    """A model that forks in a call and goes on in both is answered for once, and goes on."""
    forks = save_code(
        tmp_path,
        "forks",
        "import os\nme = os.getpid()\ndef predict(rows):\n    os.fork()\n"
        "    return [os.getpid() == me] * len(rows)\n",
    )
    async with supervised(tmp_path, zygote=base) as supervisor:
        for _ in range(5):
            assert await asked(supervisor, forks, [1.0]) == ("ok", [True])


async def test_a_process_that_closes_all_it_has_open_is_ended(base: str, tmp_path: Path) -> None:
    """Whatever it does then: its call is lost soon, and its version answers again."""
    closes = save_code(
        tmp_path,
        "closes",
        f"""
        import os, time
        def predict(rows):
            if (rows["x"] < 0).any():
                with open({str(tmp_path / "closes.pid")!r}, "w") as file:
                    file.write(str(os.getpid()))
                os.closerange(0, 1000)
                time.sleep(600)
            return rows["x"]
        """,
    )
    async with supervised(tmp_path, zygote=base) as supervisor:
        assert (await asked(supervisor, closes, [-1.0]))[0] == "lost"
        pid = int((tmp_path / "closes.pid").read_text())
        await until(lambda: not is_alive(pid))
        assert await asked(supervisor, closes, [1.0]) == ("ok", [1.0])


async def test_whatever_a_model_raises_fails_that_call_alone(base: str, tmp_path: Path) -> None:
    """Exceptions that can't be told, or that thousands of others led to, cost no process."""
    raises = save_code(
        tmp_path,
        "raises",
        """
        import os
        class Mute(Exception):
            def __str__(self): raise RuntimeError
            __repr__ = __str__
            exceptions = property(__str__)
        def long():
            error = ValueError()
            for i in range(5000):
                later = ValueError("x" * 1000)
                later.__cause__ = error
                error = later
            return error
        RAISED = [Mute, GeneratorExit, KeyboardInterrupt, SystemExit, long]
        def predict(rows):
            which = int(rows["x"].iloc[0])
            if which < 0:
                return [os.getpid()]
            raise RAISED[which]()
        """,
    )
    async with supervised(tmp_path, zygote=base) as supervisor:
        before = await asked(supervisor, raises, [-1.0])
        for which in range(5):
            assert await asked(supervisor, raises, [float(which)]) == ("model_failed", None)
        assert await asked(supervisor, raises, [-1.0]) == before


async def test_a_hung_call_costs_its_own_version_alone(base: str, tmp_path: Path) -> None:
    """While one version hangs, another answers at once; the hung one answers again soon after its
    grace."""
    hangs = save_code(
        tmp_path,
        "hangs",
        "import time\ndef predict(rows):\n    time.sleep(600 if (rows['x'] < 0).any() else 0)\n"
        "    return rows['x']\n",
    )
    other = save_code(tmp_path, "other", PREDICT.format(factor=2))
    async with supervised(tmp_path, zygote=base) as supervisor:
        for each in (hangs, other):
            await supervisor.load(each)
        began = time.monotonic()
        hung = asyncio.create_task(asked(supervisor, hangs, [-1.0], patience_s=0.5))
        slowest = 0.0
        while not hung.done():
            asked_at = time.monotonic()
            assert await asked(supervisor, other, [1.0]) == ("ok", [2.0])
            slowest = max(slowest, time.monotonic() - asked_at)
            await asyncio.sleep(0.05)
        assert (await hung)[0] == "lost"
        assert await asked(supervisor, hangs, [1.0]) == ("ok", [1.0])
        assert time.monotonic() - began < 0.5 + GRACE_S + 3.0
        assert slowest < 1.0


async def test_a_version_that_ends_its_process_is_suspended_and_says_how(
    base: str, tmp_path: Path
) -> None:
    """After three processes its calls are refused with the reason; other versions don't notice."""
    ends = save_code(
        tmp_path,
        "ends",
        "import os, signal\ndef predict(rows):\n    os.kill(os.getpid(), signal.SIGSEGV)\n",
    )
    other = save_code(tmp_path, "other", PREDICT.format(factor=2))
    async with supervised(tmp_path, zygote=base) as supervisor:
        for _ in range(3):
            assert await asked(supervisor, ends, [1.0]) == ("lost", None)
        kind, told = await asked(supervisor, ends, [1.0])
        assert kind == "suspended"
        assert "signal 11" in told["reason"]
        assert 0 < told["retry_after_s"] <= 30
        assert await asked(supervisor, other, [1.0]) == ("ok", [2.0])


async def test_a_process_that_somebody_kills_is_started_again_unasked(
    base: str, tmp_path: Path
) -> None:
    """An idle version whose process is killed is in memory again a moment later, with no strike."""
    code = "import os\ndef predict(rows): return [os.getpid()] * len(rows)\n"
    version = save_code(tmp_path, "killed", code)
    async with supervised(tmp_path, zygote=base) as supervisor:
        for _ in range(5):
            _, (pid,) = await asked(supervisor, version, [1.0])
            os.kill(pid, signal.SIGKILL)
            await until(lambda pid=pid: not is_alive(pid))  # type: ignore[misc]
            await until(lambda: supervisor.events.loaded == {MODEL: 0})
            await until(lambda: supervisor.events.loaded == {MODEL: 1})
        assert (await asked(supervisor, version, [1.0]))[0] == "ok"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import surely_not_there\n", "ModuleNotFoundError: No module named 'surely_not_there'"),
        ("raise RuntimeError('secret')\n", "RuntimeError"),
        ("raise SystemExit(3)\n", "SystemExit"),
        (
            "class Mute(Exception):\n    def __str__(self): raise RuntimeError\n"
            "    __repr__ = __str__\n    exceptions = 5\nraise Mute\n",
            "Mute",
        ),
        (
            "a, b = KeyError(), LookupError()\na.__cause__, b.__cause__ = b, a\nraise a\n",
            "KeyError",
        ),
        (
            "import os\nos._exit(7)\n",
            "its process ended with exit code 7 while it was being loaded",
        ),
        ("import time\ntime.sleep(600)\n", "it wasn't loaded within 3 s"),
    ],
)
async def test_a_version_that_cannot_be_loaded_tells_why_and_no_secret(
    base: str, tmp_path: Path, code: str, reason: str
) -> None:
    """The class of what was raised, a missing module's name, how its process ended, or the time."""
    broken = save_code(tmp_path, "broken", code + PREDICT.format(factor=2))
    async with supervised(tmp_path, zygote=base, load_timeout_s=3.0) as supervisor:
        kind, told = await asked(supervisor, broken, [1.0])
        assert kind == "load_failed"
        assert told["reason"] == reason
        again = await supervisor.load(broken)
        assert again[0] == "load_failed"  # remembered: not tried at once
        failures = supervisor.events.untold()["events"]
        assert [event[0] for event in failures] == ["failed"]
        assert failures[0][4] == reason


async def test_a_version_that_lacks_what_mlflow_brings_gets_packages_of_its_own(
    tmp_path: Path,
) -> None:
    """Nobody hears that its load has failed with the gateway's, of which it names MLflow alone."""
    wanted = save_code(tmp_path, "lacks", "import brought_by_mlflow\n" + PREDICT.format(factor=1))
    async with supervised(tmp_path) as supervisor:
        planner = supervisor._environments._planner
        has = {"mlflow-skinny": "99"}
        planner._installed = Installed(python_minor=GATEWAY_PYTHON, versions=has)
        planner.builder.build = never_built  # type: ignore[method-assign]
        assert (await asked(supervisor, wanted, [1.0]))[0] == "building"
        assert supervisor.events.untold()["events"] == []
        (digest,) = planner.builder.store.lacking.all()
        assert planner.builder.store.lacking.find(digest) == "brought_by_mlflow"


async def test_a_call_that_lacks_what_mlflow_brings_comes_again_with_it(tmp_path: Path) -> None:
    """Its model imports when it is called: nobody hears that it failed with the gateway's packages,
    of which it names MLflow alone."""
    wanted = save_code(
        tmp_path,
        "lacks",
        "def predict(rows):\n    import brought_by_mlflow\n    return rows['x']\n",
    )
    async with supervised(tmp_path) as supervisor:
        planner = supervisor._environments._planner
        has = {"mlflow-skinny": "99"}
        planner._installed = Installed(python_minor=GATEWAY_PYTHON, versions=has)
        planner.builder.build = never_built  # type: ignore[method-assign]
        assert await asked(supervisor, wanted, [1.0]) == ("lost", None)
        assert (await asked(supervisor, wanted, [1.0]))[0] == "building"
        (digest,) = planner.builder.store.lacking.all()
        assert planner.builder.store.lacking.find(digest) == "brought_by_mlflow"


async def never_built(*_: object, **__: object) -> Environment:
    await asyncio.Event().wait()
    raise AssertionError


async def test_who_leaves_takes_nobody_s_load_along(base: str, tmp_path: Path) -> None:
    """Of several who wait for one load the first gives up; the others get their answers."""
    slow = save_code(tmp_path, "slow", "import time\ntime.sleep(1)\n" + PREDICT.format(factor=2))
    async with supervised(tmp_path, zygote=base) as supervisor:
        callers = [asyncio.create_task(asked(supervisor, slow, [1.0])) for _ in range(4)]
        await asyncio.sleep(0.5)
        callers[0].cancel()
        assert await asyncio.gather(*callers[1:]) == [("ok", [2.0])] * 3


async def test_output_of_a_process_goes_to_the_log_by_line(
    base: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What a model prints, by Python or below it, is told with model and version, and bounded."""
    talks = save_code(
        tmp_path,
        "talks",
        """
        import os, sys
        print("while loading")
        def predict(rows):
            print("to stdout")
            print("to stderr", file=sys.stderr)
            os.write(1, b"from below\\n")
            os.write(2, b"x" * 100_000 + b"\\n")
            for i in range(20_000):
                print("flood")
            return rows["x"]
        """,
    )
    caplog.set_level("INFO", logger="modelmux.model_output")
    async with supervised(tmp_path, zygote=base) as supervisor:
        assert (await asked(supervisor, talks, [1.0]))[0] == "ok"
        await until(lambda: any("flood" in record.getMessage() for record in caplog.records))
    lines = [r for r in caplog.records if r.name == "modelmux.model_output"]
    said = [record.getMessage() for record in lines]
    for text in ("while loading", "to stdout", "to stderr", "from below"):
        assert f"m version 1: {text}" in said
    assert max(map(len, said)) < 5_000
    assert len(said) < 1_500
    assert any("lines were left out" in text for text in said)
    assert all(
        record.fields == {"model": "m", "version": 1}
        for record in lines  # type: ignore[attr-defined]
        if record.getMessage().startswith("m ")
    )


LEAVES_CHILDREN = """
import subprocess, sys
children = [
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=new)
    for new in (False, True)
]
def predict(rows):
    import os
    return [[os.getpid(), os.getppid(), *(child.pid for child in children)]] * len(rows)
"""

SUPERVISE = """
import asyncio, json, sys, time
from pathlib import Path
from tests.support.processes_of import command_of
from tests.support.supervised import asked, supervised, version

async def main():
    async with supervised(Path(sys.argv[1])) as supervisor:
        print(json.dumps((await asked(supervisor, version("leaves"), [1.0]))[1][0]), flush=True)
        busy = asyncio.create_task(asked(supervisor, version("busy"), [1.0]))
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux' /proc")
async def test_nothing_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    """Killed with SIGKILL it takes along its template, its models, one in the middle of a call, and
    what they have started."""
    save_code(tmp_path, "leaves", LEAVES_CHILDREN)
    save_code(
        tmp_path,
        "busy",
        "import os\nfrom pathlib import Path\ndef predict(rows):\n"
        f"    Path({str(tmp_path)!r}, 'busy').write_text(str(os.getpid()))\n"
        "    while True: pass\n",
    )
    program = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", SUPERVISE, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert program.stdout is not None
        pids = json.loads(await asyncio.to_thread(program.stdout.readline))
        await until(lambda: (tmp_path / "busy").exists(), timeout_s=20.0)
        busy = tmp_path / "busy"
        await until(lambda: busy.read_text() != "")
        pids.append(int(busy.read_text()))
        assert all(map(is_alive, pids))
        program.kill()
        await until(lambda: not any(map(is_alive, pids)))
    finally:
        program.kill()
        program.communicate()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def test_closing_answers_what_was_taken(base: str, tmp_path: Path) -> None:
    """A call that is being answered when the supervisor closes gets its answer."""
    slow = save_code(
        tmp_path,
        "slow",
        "import time\ndef predict(rows):\n    time.sleep(1)\n    return rows['x']\n",
    )
    async with supervised(tmp_path, zygote=base) as supervisor:
        await supervisor.load(slow)
        call = asyncio.create_task(asked(supervisor, slow, [1.0]))
        await asyncio.sleep(0.3)
    assert await call == ("ok", [1.0])


async def test_a_version_that_is_evicted_while_it_is_restarted_has_no_process_too_many(
    base: str,
    tmp_path: Path,
) -> None:
    """Its process is killed and its reload is slow; meanwhile another takes the only room."""
    tells = "import os\ndef predict(rows): return [os.getpid()] * len(rows)\n"
    first = save_code(tmp_path, "first", "import time\ntime.sleep(1.5)\n" + tells)
    second = save_code(tmp_path, "second", tells)
    async with supervised(tmp_path, zygote=base, most_versions=1) as supervisor:
        _, (pid,) = await asked(supervisor, first, [1.0])
        os.kill(pid, signal.SIGKILL)
        await until(lambda: supervisor.events.loaded == {MODEL: 0})
        await asked(supervisor, second, [1.0])
        restarts = [event for event in supervisor.events.untold()["events"] if event[0] == "ok"]
        await until(
            lambda: sum(e[0] == "ok" for e in supervisor.events.untold()["events"]) > len(restarts)
        )
        await until(lambda: supervisor.events.loaded == {MODEL: 1})
