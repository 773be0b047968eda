"""Runs a command that builds an environment, and sees to its end: `python -I guarded_run.py …`.

A process of its own, so that nothing outlives what asked for it: it ends the command, with all
that it has started, when its standard input is closed (the gateway is gone, or wants it), when the
time is up, or when the folders have become too large, or what uv builds in its cache has grown by
so much. What is run has low priority and writes no file that is larger than the folders may be.

Arguments: SECONDS MOST_BYTES FOLDERS CACHE COMMAND…, of which FOLDERS is JSON. Ends with the
command's exit code, or with one of those below. Started by path in the gateway's interpreter;
imports only `model_process.lifetime`.
"""

from __future__ import annotations

import glob
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

TOO_LONG = 240
TOO_LARGE = 241
ENDED = 242
KILLED = 243
"""The command was killed by another; the last line of the output tells by which signal."""

_BUILT = ("builds-v*", "sdists-v*")
_NICENESS = 10
_LOOK_S = 2.0
_LAST_WAIT_S = 5.0


def main() -> int:
    """Run the command in a child of this process; the exit code.

    A worker of Ray's kills its own children when it ends, and what these had started would go on
    for ever. So its child only waits; the one that sees to the end of all is its grandchild.
    """
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(theirs)
        os._exit(_guarded(ours))
    os.close(ours)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return KILLED if code < 0 else code


def _guarded(waits: int) -> int:
    """Run the command as long as there is who `waits`, a pipe from there; the exit code."""
    seconds, most_bytes, folders, cache, *command = sys.argv[1:]
    size = _Size(json.loads(folders), cache)
    sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..")))
    from deployments.model_process import lifetime

    lifetime.adopt_orphans()
    os.nice(_NICENESS)
    parent = os.getpid()
    woken, waking = os.pipe()
    for end in (woken, waking):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)

    def prepare() -> None:
        lifetime.die_with_parent(parent)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(most_bytes), int(most_bytes)))

    child = subprocess.Popen(  # noqa: S603 - the gateway's own command
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=prepare,
    )
    try:
        code = _watched(child, woken, waits, float(seconds), int(most_bytes), size)
    finally:
        deadline = time.monotonic() + _LAST_WAIT_S
        while time.monotonic() < deadline:
            lifetime.end_all([child.pid])
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                break
    return code


def _watched(
    child: subprocess.Popen[bytes],
    woken: int,
    waits: int,
    seconds: float,
    most_bytes: int,
    size: _Size,
) -> int:
    """Wait for its end, or for a reason to end it."""
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return TOO_LONG
        ready, _, _ = select.select([sys.stdin, waits, woken], [], [], min(left, _LOOK_S))
        if sys.stdin in ready or waits in ready:
            return ENDED
        if woken in ready:
            with suppress(BlockingIOError):
                os.read(woken, 4096)
        # Not reaped yet, it keeps its number, and so does the group that it leads.
        ended = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None:
            if ended.si_code == os.CLD_EXITED:
                return ended.si_status
            _tell_signal(child, ended.si_status)
            return KILLED
        if not ready and size.bytes() > most_bytes:
            return TOO_LARGE


def _tell_signal(child: subprocess.Popen[bytes], number: int) -> None:
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    assert isinstance(child.args, list)
    with suppress(OSError):
        os.write(1, f"{os.path.basename(child.args[0])} was killed by {name}.\n".encode())


class _Size:
    """What a build takes: folders of its own, and by how much those have grown in which uv unpacks
    and builds packages, for whatever build."""

    def __init__(self, folders: list[str], cache: str) -> None:
        self._folders = folders
        self._cache = cache
        self._at_first = self._built()

    def bytes(self) -> int:
        own = sum(folder_bytes(each) for each in self._folders)
        return own + max(0, self._built() - self._at_first)

    def _built(self) -> int:
        cache = glob.escape(self._cache)
        found = [each for name in _BUILT for each in glob.glob(os.path.join(cache, name))]
        return sum(map(folder_bytes, found))


def folder_bytes(folder: str) -> int:
    """The size of all files below; what goes away meanwhile counts nothing."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(where, name)).st_size
    return total


if __name__ == "__main__":
    sys.exit(main())
