"""What is run to build an environment comes to an end, with all that it has started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from deployments.environments import guarded_run
from tests.support.processes import poll
from tests.support.processes_of import is_alive

# Starts a process that leaves its group, as a build tool might, and waits.
STARTS_ANOTHER = """
import os, sys, subprocess, time
waits = [sys.executable, "-c", "import time; time.sleep(600)"]
child = subprocess.Popen(waits, start_new_session=True)
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid}")
time.sleep(600)
"""


def start(
    folder: Path,
    *command: str,
    seconds: float = 60.0,
    most_bytes: int = 10**9,
    cache: Path = Path("/nowhere"),
    stdout: int | None = None,
) -> subprocess.Popen[bytes]:
    guard = [sys.executable, "-I", str(guarded_run.__file__)]
    return subprocess.Popen(
        [*guard, str(seconds), str(most_bytes), json.dumps([str(folder)]), str(cache), *command],
        stdin=subprocess.PIPE,
        stdout=stdout,
    )


def code_of(guard: subprocess.Popen[bytes]) -> int:
    assert guard.stdin is not None
    try:
        return guard.wait(60)
    finally:
        guard.stdin.close()


def started(folder: Path) -> list[int]:
    path = folder / "pids"
    poll(lambda: path.exists() and len(path.read_text().split()) == 2)
    return [int(pid) for pid in path.read_text().split()]


def test_the_commands_exit_code_is_told(tmp_path: Path) -> None:
    """And it has a low priority."""
    assert code_of(start(tmp_path, sys.executable, "-c", "raise SystemExit(7)")) == 7
    lowest = 19  # Unix has none below, and the tests may run with it themselves
    nice = "import os; raise SystemExit(os.nice(0))"
    got = code_of(start(tmp_path, sys.executable, "-c", nice))
    assert got == min(os.nice(0) + 10, lowest)


def test_the_signal_is_named_that_killed_the_command(tmp_path: Path) -> None:
    """As the last line of what was said: nobody else could say it."""
    killed = "import os; print('at work', flush=True); os.kill(os.getpid(), 9)"
    guard = start(tmp_path, sys.executable, "-c", killed, stdout=subprocess.PIPE)
    assert guard.stdout is not None
    told = guard.stdout.read().decode().splitlines()
    guard.stdout.close()
    assert code_of(guard) == guarded_run.KILLED
    assert told == ["at work", f"{Path(sys.executable).name} was killed by SIGKILL."]


def test_when_the_time_is_up_all_is_ended(tmp_path: Path) -> None:
    """Also what has left the group."""
    guard = start(
        tmp_path, sys.executable, "-c", STARTS_ANOTHER, str(tmp_path / "pids"), seconds=1.5
    )
    assert code_of(guard) == guarded_run.TOO_LONG
    assert not any(map(is_alive, started(tmp_path)))


def test_when_its_input_is_closed_all_is_ended(tmp_path: Path) -> None:
    """So it is when the gateway is killed."""
    guard = start(tmp_path, sys.executable, "-c", STARTS_ANOTHER, str(tmp_path / "pids"))
    pids = started(tmp_path)
    assert guard.stdin is not None
    guard.stdin.close()
    assert guard.wait(30) == guarded_run.ENDED
    assert not any(map(is_alive, pids))


def test_the_command_ends_with_the_guard(tmp_path: Path) -> None:
    """With all that it has started: who sees to that is killed with nobody."""
    guard = start(tmp_path, sys.executable, "-c", STARTS_ANOTHER, str(tmp_path / "pids"))
    pids = started(tmp_path)
    guard.kill()
    code_of(guard)
    poll(lambda: not any(map(is_alive, pids)))


MANY_FILES = """
import sys, time
for number in range(200):
    open(f"{sys.argv[1]}/{number}", "wb").write(b"x" * 10_000)
time.sleep(600)
"""


def test_where_packages_are_built_counts_by_what_it_has_grown(tmp_path: Path) -> None:
    """What earlier builds have left there is nobody's fault."""
    built = tmp_path / "cache" / "sdists-v9"
    built.mkdir(parents=True)
    (built / "earlier").write_bytes(b"x" * 3_000_000)
    own = tmp_path / "own"
    own.mkdir()
    command = [sys.executable, "-c", MANY_FILES, str(built)]
    guard = start(own, *command, most_bytes=1_000_000, cache=tmp_path / "cache")
    assert code_of(guard) == guarded_run.TOO_LARGE
    command = [sys.executable, "-c", "import time; time.sleep(3)"]
    guard = start(own, *command, most_bytes=1_000_000, cache=tmp_path / "cache")
    assert code_of(guard) == 0


def test_a_folder_that_grows_too_large_ends_it(tmp_path: Path) -> None:
    """Many files are counted together, and one alone can't be larger than all may be."""
    guard = start(tmp_path, sys.executable, "-c", MANY_FILES, str(tmp_path), most_bytes=1_000_000)
    assert code_of(guard) == guarded_run.TOO_LARGE
    one = """
import sys
try:
    open(f"{sys.argv[1]}/one", "wb").write(b"x" * 2_000_000)
except OSError:
    raise SystemExit(5)
"""
    guard = start(tmp_path, sys.executable, "-c", one, str(tmp_path), most_bytes=1_000_000)
    assert code_of(guard) == 5
