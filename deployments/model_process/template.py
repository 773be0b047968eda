"""The fork server (template): has imported what models need, and forks or spawns the others.

It runs no model's code and starts no thread, so a fork of it is as good as a fresh process
(docs/decisions/0037). It is the parent of all processes of one interpreter: it tells the supervisor
when one ends, ends what they leave behind, and ends them all when the supervisor is gone.

The supervisor says, a line of JSON each: `{"id", "method": "fork" | "spawn", "job"}` to start one,
`{"end": pid}` to kill one. It is told
`{"event": "ready", "pid", "failed": {module: class of error}}`, `{"event": "started", "id", "pid"}`
and `{"event": "exited", "pid", "status"}`.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import warnings
from contextlib import suppress
from typing import Any

from . import lifetime, start
from .attempt import attempted
from .channel import line_of

_PIECE_BYTES = 256 * 1024
_LAST_WAIT_S = 1.0


def main(arguments: list[str]) -> None:
    """Be a template: `CONTROL_FD PARENT MODULE…`."""
    control_fd, parent, *modules = arguments
    control = socket.socket(fileno=int(control_fd))
    lifetime.die_with_parent(int(parent), by=signal.SIGTERM)
    guard(control)
    failed = imported(modules)
    gc.collect()
    gc.freeze()  # what is shared stays shared: the collector would write to all of it
    serve(control, failed)


def guard(control: socket.socket) -> None:
    """Fork, and return in the child, the template. Its parent guards it: a template that is killed
    can end nothing, so what its processes have started is ended by the guard, which ends last."""
    this = os.getpid()
    lifetime.adopt_orphans()
    child = forked()
    if not child:
        # It sees by its connection that the supervisor is gone, and has to end others before
        # itself; while it imports, which may hang, the signal ends it.
        lifetime.die_with_parent(this, by=signal.SIGTERM)
        return
    control.close()
    # It stays in the group of whoever started it, which a terminal's Ctrl-C is for, and has its
    # way with signals, be it that it ignores the ends of children.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, lambda *_: _pass_on(child, signal.SIGTERM))
    has_ended = False
    while True:
        try:
            # Not reaped yet, it keeps its number.
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            os._exit(0)
        assert ended is not None  # it was waited for
        if ended.si_pid == child:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            has_ended = True
        os.waitpid(ended.si_pid, 0)
        if has_ended:
            lifetime.end_all(())


def _pass_on(process: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, number)


def serve(control: socket.socket, failed: dict[str, str]) -> None:
    """Start processes as the other end of `control` says; ends this process, and those."""
    lifetime.lead_group()
    lifetime.adopt_orphans()
    job = Template(control, failed).serve()
    if job is not None:
        _run(job)


def forked() -> int:
    """Fork this process: as `os.fork`."""
    with warnings.catch_warnings():
        # Python 3.12 warns of the threads of a BLAS, which stops them before a fork.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _run(job: dict[str, Any]) -> None:
    from . import job as jobs  # imports NumPy and pandas: not where nothing is to be forked

    jobs.run(job)


def imported(modules: list[str]) -> dict[str, str]:
    """Import each; which failed, and how. The model's own import of it will tell the rest."""
    failed: dict[str, str] = {}
    for module in modules:
        problem = _import_problem(module)
        if problem is not None:
            failed[module] = problem
    return failed


def _import_problem(module: str) -> str | None:
    _, error = attempted(importlib.import_module, module)
    if isinstance(error, KeyboardInterrupt):
        raise error  # Ctrl-C, which is no package's problem
    return None if error is None else type(error).__name__


class Template:
    """Starts processes as it is told, until its supervisor is gone."""

    def __init__(self, control: socket.socket, failed: dict[str, str]) -> None:
        self._control = control
        self._failed = failed
        self._children: set[int] = set()
        self._heard = bytearray()
        self._woken, self._waking = socket.socketpair()
        for each in (self._woken, self._waking):
            each.setblocking(False)

    def serve(self) -> dict[str, Any] | None:
        """Start what is asked for. Returns in the processes that were forked, with their job."""
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._waking.fileno(), warn_on_full_buffer=False)
        self._tell({"event": "ready", "pid": os.getpid(), "failed": self._failed})
        while True:
            ready, _, _ = select.select([self._control, self._woken], [], [])
            if self._woken in ready:
                with suppress(BlockingIOError):
                    self._woken.recv(_PIECE_BYTES)
                self._reap()
            if self._control in ready:
                for said in self._said():
                    if "end" in said:
                        self._end_child(said["end"])
                        continue
                    job = self._start(said)
                    if job is not None:
                        return job

    def _said(self) -> list[dict[str, Any]]:
        try:
            data = self._control.recv(_PIECE_BYTES)
        except OSError:
            data = b""
        if not data:
            self._end()
        self._heard += data
        *lines, rest = self._heard.split(b"\n")
        self._heard = bytearray(rest)
        return [json.loads(line) for line in lines]

    def _start(self, said: dict[str, Any]) -> dict[str, Any] | None:
        """Start one; its job in the process itself, where that is a fork."""
        job = dict(said["job"], parent=os.getpid())
        forks = said["method"] == "fork" and threading.active_count() == 1
        pid = forked()
        if pid:
            self._children.add(pid)
            self._tell({"event": "started", "id": said["id"], "pid": pid})
            return None
        self._leave()
        if forks:
            return job
        _become_anew(job)
        return None  # never reached

    def _end_child(self, pid: int) -> None:
        """Kill one, if it is there still: until it is reaped nobody else has its number."""
        if pid in self._children:
            lifetime.end_group(pid)

    def _leave(self) -> None:
        """What is the template's alone isn't its child's."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for each in (self._control, self._woken, self._waking):
            each.close()

    def _reap(self) -> None:
        while True:
            try:
                # Not reaped yet, it keeps its number, and so does the group that it leads.
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            if ended.si_pid in self._children:
                lifetime.end_group(ended.si_pid)
            _, status = os.waitpid(ended.si_pid, 0)
            # A model's process is the parent of what its own children leave behind: whatever has
            # come to this one has nobody else any more.
            lifetime.end_strays(self._children)
            if ended.si_pid in self._children:
                self._children.discard(ended.si_pid)
                self._tell({"event": "exited", "pid": ended.si_pid, "status": status})

    def _tell(self, event: dict[str, Any]) -> None:
        try:
            self._control.sendall(line_of(event))
        except OSError:
            self._end()

    def _end(self) -> None:
        """The supervisor is gone: nothing outlives it."""
        signal.set_wakeup_fd(-1)
        deadline = time.monotonic() + _LAST_WAIT_S
        while time.monotonic() < deadline:
            lifetime.end_all(self._children)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                break
        os._exit(0)


def _become_anew(job: dict[str, Any]) -> None:
    """Be another process of the same interpreter, with the job as its input."""
    reading, writing = os.pipe()
    content = json.dumps(job).encode("ascii")
    os.write(writing, content)  # less than a pipe holds
    os.close(writing)
    os.dup2(reading, 0)
    program = str(start.__file__)
    os.execv(sys.executable, [sys.executable, program, "job"])
