"""Ranges of TCP ports of this machine, each for one gateway. Must not import ray.

HAProxy and the replicas behind it bind their ports seconds after somebody looked for free ones.
Two gateways that start at once would find the same; so each holds its range as long as it runs.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager

_LOOPBACK = "127.0.0.1"

# Above those that `ray start` keeps for its workers (10,002 to 19,999), and below those that the
# system gives to clients (from 32,768 on Linux).
_LOWEST_PORT, _HIGHEST_PORT, _RANGE = 20_000, 31_000, 100

# Of each end, since somebody else may be there who knows nothing of ranges.
_PROBED = 4


@contextmanager
def own_ports() -> Iterator[range]:
    """99 consecutive ports, of which the first few and the last few are free; no other gateway of
    this machine gets one of them before the block ends. Where to begin is chance."""
    starts = list(range(_LOWEST_PORT, _HIGHEST_PORT, _RANGE))
    random.shuffle(starts)
    for start in starts:
        ports, hold = range(start, start + _RANGE - 1), start + _RANGE - 1
        with socket.socket() as held:
            if _binds(held, hold) and all(map(_is_free, (*ports[:_PROBED], *ports[-_PROBED:]))):
                yield ports
                return
    yield range(_HIGHEST_PORT, _HIGHEST_PORT + _RANGE - 1)  # nobody else begins here


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return _binds(probe, port)


def _binds(free: socket.socket, port: int) -> bool:
    try:
        free.bind((_LOOPBACK, port))
    except OSError:
        return False
    return True
