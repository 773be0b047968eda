"""Standing back: a process whose answers nobody waits for, so that all others come first.

It has the CPU that they leave, and goes first where memory runs out. Nothing of this can be asked
for where the system has no such thing: then it runs as all do. What it answers is bounded: who
compares it has others to answer.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Callable

from .framing import Message
from .messages import UNSUPPORTED, Outcome, packed_outcome

# A load has to come to an end on a machine that is busy: it has a tenth of what others have.
_LOADING = 10
_SERVING = 19
_FIRST_TO_GO = "1000"  # proc_pid_oom_score_adj(5)
# Twice what is kept of a request with its answer (`gateway.shadow.shadowing`).
_MOST_BYTES = 8 * 1024 * 1024


def while_loading() -> None:
    """Have little of the CPU, and be what the system ends first for want of memory."""
    _be_nice(_LOADING)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(_FIRST_TO_GO)


def while_serving() -> None:
    """Have what is left of the CPU."""
    _be_nice(_SERVING)


def bounded(
    answer: Callable[[Message], bytes], most_bytes: int = _MOST_BYTES
) -> Callable[[Message], bytes]:
    """The same answers, packed, but for those that are too large to be compared."""

    def answered(message: Message) -> bytes:
        packed = answer(message)
        if len(packed) <= most_bytes:
            return packed
        said = "the model answered {} MB, more than is compared".format(len(packed) // 1_000_000)
        return packed_outcome(Outcome(UNSUPPORTED, said))

    return answered


def _be_nice(how: int) -> None:
    """On Linux niceness is each thread's own (sched(7)): those that a model has started, too."""
    if not hasattr(os, "setpriority"):
        return
    for thread in _threads():
        with suppress(OSError):  # it has ended
            os.setpriority(os.PRIO_PROCESS, thread, how)


def _threads() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/task")]
    except OSError:
        return [0]
