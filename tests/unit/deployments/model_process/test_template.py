"""The template and its guard, alone: nothing is imported, and no process of a model started."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from deployments.model_process import lifetime, start, template
from tests.support.processes import poll

LEAVES = """
import subprocess
left = subprocess.Popen(["sleep", "600"], start_new_session=True)
with open({told!r}, "w") as told: told.write(str(left.pid))
"""


@contextmanager
def guarded(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """A guard, the pid of its template, and that of a process that the template has started."""
    told = folder / "told"
    (folder / "leaves.py").write_text(LEAVES.format(told=str(told)))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        arguments = [str(theirs.fileno()), str(os.getpid()), "leaves"]
        guard = subprocess.Popen(
            [sys.executable, str(start.__file__), "template", *arguments],
            pass_fds=(theirs.fileno(),),
            env={**os.environ, "PYTHONPATH": str(folder)},
            start_new_session=True,
        )
        theirs.close()
        try:
            ready = json.loads(ours.makefile().readline())
            assert ready["failed"] == {}
            yield guard, ready["pid"], int(told.read_text())
        finally:
            guard.kill()
            guard.wait()


def ends_all(guard: subprocess.Popen[bytes], template_pid: int, left: int) -> bool:
    """Whether the guard ends what its template, which is killed, has left behind, and itself."""
    os.kill(template_pid, signal.SIGKILL)
    try:
        poll(lambda: not Path(f"/proc/{left}").exists(), timeout_s=10.0, what="the end of it")
        return guard.wait(10.0) == 0
    except AssertionError:
        os.kill(left, signal.SIGKILL)
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="needs orphans that are adopted")
def test_a_guard_outlives_ctrl_c_in_its_terminal(tmp_path: Path) -> None:
    """It is in the terminal's group, which gets the signal, and its template isn't."""
    with guarded(tmp_path) as (guard, template_pid, left):
        os.killpg(guard.pid, signal.SIGINT)
        assert ends_all(guard, template_pid, left)


@pytest.mark.skipif(sys.platform != "linux", reason="needs orphans that are adopted")
def test_a_guard_sees_ends_that_whoever_started_it_ignores(tmp_path: Path) -> None:
    """A signal that is ignored is so in programs that are started, too."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with guarded(tmp_path) as (guard, template_pid, left):
            signal.signal(signal.SIGCHLD, before)
            assert ends_all(guard, template_pid, left)
    finally:
        signal.signal(signal.SIGCHLD, before)


class Exited(Exception):
    """Where the guard would end its process."""


def test_a_guard_passes_a_signal_on_to_its_template_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the template's number may be another process's, it gets none."""
    passed: list[str] = []
    at = "running"
    handlers: dict[int, Callable[[int, None], None]] = {}

    def terminated() -> None:
        handler = handlers[signal.SIGTERM]
        if callable(handler):
            handler(signal.SIGTERM, None)

    def reap(*_: object) -> tuple[int, int]:
        nonlocal at
        if at == "reaped":
            raise ChildProcessError
        at = "reaped"
        terminated()
        return 4242, 0

    def wait(*_: object) -> os.waitid_result:
        if at == "reaped":
            raise ChildProcessError
        terminated()
        return os.waitid_result((4242, 0, signal.SIGCHLD, 9, os.CLD_KILLED))

    def leave(_: int) -> NoReturn:
        raise Exited

    monkeypatch.setattr(template, "forked", lambda: 4242)
    monkeypatch.setattr(template, "_pass_on", lambda *_: passed.append(at))
    monkeypatch.setattr(lifetime, "adopt_orphans", lambda: None)
    monkeypatch.setattr(lifetime, "end_all", lambda _: terminated())
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    monkeypatch.setattr(os, "waitpid", reap)
    monkeypatch.setattr(os, "waitid", wait)
    monkeypatch.setattr(os, "_exit", leave)
    with socket.socket() as control, pytest.raises(Exited):
        template.guard(control)
    assert passed == ["running"]


def test_an_interrupt_is_no_package_s_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while a template imports ends it; whatever else an import raises is noted."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "leaving_at_import.py").write_text("raise SystemExit")
    (tmp_path / "interrupted_at_import.py").write_text("raise KeyboardInterrupt")
    assert template.imported(["leaving_at_import"]) == {"leaving_at_import": "SystemExit"}
    with pytest.raises(KeyboardInterrupt):
        template.imported(["interrupted_at_import"])
