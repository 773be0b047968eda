"""The zygote of this machine: what models' processes are forked from, imported ahead.

Started with a Ray of our own, and ended with it. On a cluster that is joined each replica imports
for itself. Must not import ray.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from deployments.model_process import start
from deployments.model_process.channel import listening
from deployments.model_replica.processes import model_environment, new_address

# As Ray sets it for processes that ask for no whole processor, which most models don't.
_OF_A_REPLICA = {"OMP_NUM_THREADS": "1"}
_END_S = 5.0
_BACKLOG = 256


@contextmanager
def zygote() -> Iterator[str]:
    """Its address, from now on: who connects early waits for its imports."""
    address = new_address()
    with listening(address, _BACKLOG) as listener:
        descriptor = listener.fileno()
        process = subprocess.Popen(  # noqa: S603 - nothing in it that callers said
            [sys.executable, str(start.__file__), "zygote", str(descriptor), str(os.getpid())],
            env={**_OF_A_REPLICA, **model_environment()},
            stdin=subprocess.DEVNULL,
            pass_fds=(descriptor,),
        )
    try:
        yield address
    finally:
        process.kill()
        process.wait(_END_S)
