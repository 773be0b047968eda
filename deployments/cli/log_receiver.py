"""The log receiver: lines of all processes on this machine come together on the command's stderr.

Ray could bring them there, too, by a file per process that grows without end, line by line, with a
prefix that makes JSON none (docs/decisions/0023). Here whole batches are copied as they are. Must
not import ray.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_LARGEST_BATCH_BYTES = 1024 * 1024
_BUFFER_BYTES = 8 * 1024 * 1024


@contextmanager
def log_receiver(
    path: Path, *, descriptor: int = 2, before: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Copy what is sent to the socket at `path` to the descriptor; ends once all of it is there.

    `before` is called ahead of each batch: a terminal may have something else on its last line.
    """
    receiving = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiving.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    receiving.bind(str(path))
    thread = threading.Thread(
        target=_copy, args=(receiving, descriptor, before), name="log receiver"
    )
    thread.daemon = True  # a terminal that takes nothing more must not keep the command
    thread.start()
    try:
        yield
    finally:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ending:
            ending.sendto(b"", str(path))
        thread.join(timeout=5.0)
        receiving.close()
        path.unlink(missing_ok=True)


def _copy(receiving: socket.socket, descriptor: int, before: Callable[[], None]) -> None:
    """Until an empty message: nobody else sends one."""
    while batch := receiving.recv(_LARGEST_BATCH_BYTES):
        try:
            before()
            while batch:
                batch = batch[os.write(descriptor, batch) :]
        except OSError:
            continue  # stderr is gone: whoever sends must not notice
