"""Parent-death signals and process groups: no process outlives the one that started it.

Linux kills it with its parent (prctl(2), PR_SET_PDEATHSIG), whatever it is at; elsewhere it ends
once it sees the end of its parent's connection.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Container, Iterable
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def die_with_parent(parent: int, by: int = signal.SIGKILL) -> None:
    """Get the signal `by` when the thread of process `parent` ends that started this; end at once
    if it has."""
    _prctl(_PR_SET_PDEATHSIG, by)
    if os.getppid() != parent:
        os._exit(1)


def lead_group() -> None:
    """Be in a group of its own, with all that this process starts: so that they can be ended
    together, and a terminal's Ctrl-C is for others."""
    with suppress(OSError):
        os.setpgid(0, 0)


def adopt_orphans() -> None:
    """Be the parent of what this process's children leave behind, so that it can be ended."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def end_group(leader: int) -> None:
    """Kill the process and what it has started, as far as that stayed in its group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    with suppress(ProcessLookupError, PermissionError):
        os.kill(leader, signal.SIGKILL)


def end_all(leaders: Iterable[int]) -> None:
    """Kill these, and all other children of this process, adopted ones too."""
    for leader in leaders:
        end_group(leader)
    for child in _children():
        with suppress(ProcessLookupError, PermissionError):
            os.kill(child, signal.SIGKILL)


def end_strays(known: Container[int]) -> None:
    """Kill all children of this process but those: what one that has ended has left behind."""
    for child in _children():
        if child not in known:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)


def _children() -> list[int]:
    try:
        with open("/proc/self/task/%d/children" % os.getpid()) as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []
