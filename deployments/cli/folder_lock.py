"""The state folder belongs to one gateway at a time: a lock with its owner's name in it.

The lock is the system's (flock), so it ends with the process that has it, however that ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FILE = "gateway.lock"


class FolderTaken(Exception):
    """Another gateway has the folder; the sentence is meant for people."""


@contextmanager
def folder_of_one_gateway(folder: Path, *, url: str) -> Iterator[None]:
    """Have the folder while the block lasts; raises FolderTaken where another process has it.

    Where it can't be written nobody keeps anything there, and where the file system has no locks
    nobody can be kept out: both are no obstacle.
    """
    try:
        descriptor = os.open(folder / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:
        yield
        return
    try:
        _lock(descriptor, folder)
        _write_owner(descriptor, url)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FolderTaken(
            f"the state folder {folder} is in use by {_owner(descriptor)}: give this gateway one "
            "of its own by --state-dir or MODELMUX_STATE_DIR"
        ) from None
    except OSError:
        return  # no locks on this file system


def _write_owner(descriptor: int, url: str) -> None:
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "url": url}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(owner).encode(), 0)


def _owner(descriptor: int) -> str:
    """Who has it, as far as that can be read: it may be about to write it."""
    try:
        told = json.loads(os.pread(descriptor, 4096, 0))
        return f"the gateway at {told['url']} (process {told['pid']} on {told['host']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another gateway"
