"""A replica's Unix socket: calls of versions in memory, past the machinery of a call by handle.

An ingress replica on the same machine may ask here for what it has asked by handle before. A
connection is for one version and has a thread of its own, which reads, calls the model and answers:
no change of threads, no event loop. A call by handle costs more than the model of a small request
(docs/5-performance.md, docs/decisions/0015).

Travels to the replica by value with `deployments.model_replica.versions`, and like it imports
nothing else of ours. The socket's name is in Linux' abstract namespace (unix(7)): it leaves no file
behind, and only processes of the same user are answered, since what travels is pickled."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
import socket
import struct
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

_logger = logging.getLogger("modelmux.model_socket")

PREFIX_BYTES = 8
"""What stands before each pickle: its length, as a little-endian number of so many bytes."""

_BACKLOG = 64
_PEER = "3i"  # struct ucred: pid, uid, gid (unix(7), SO_PEERCRED)

Answer = Callable[..., tuple[str, Any]]
"""Answers the arguments of a call with an outcome, on the calling thread; must not raise."""


def is_supported() -> bool:
    """Whether this system has sockets without files, and tells who is at their other end."""
    return sys.platform == "linux"


def is_same_user(connection: socket.socket) -> bool:
    """Whether the process at the other end belongs to the user of this one."""
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(_PEER))
    return bool(struct.unpack(_PEER, peer)[1] == os.getuid())


def packed(value: Any) -> bytes:
    """A value as it travels, behind its length."""
    content = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    return len(content).to_bytes(PREFIX_BYTES, "little") + content


class ModelSocket:
    """Listens from the start; `name` is what it is reached by on this machine."""

    def __init__(self, answer: Answer) -> None:
        self.name = f"modelmux-{uuid.uuid4().hex}"
        self._answer = answer
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(f"\0{self.name}")
        self._listener.listen(_BACKLOG)
        _start(self._accept)

    def close(self, *, timeout_s: float) -> None:
        """Take no more calls, and wait for the answers to those that were taken; blocks."""
        connections = dict(self._connections)
        for each in (self._listener, *connections.values()):
            with contextlib.suppress(OSError):  # closed already
                each.shutdown(socket.SHUT_RD)
        deadline = time.monotonic() + timeout_s
        for thread in connections:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _accept(self) -> None:
        with self._listener:
            while True:
                try:
                    connection, _ = self._listener.accept()
                except OSError:
                    return  # closed
                if is_same_user(connection):
                    _start(self._serve, connection)
                else:
                    connection.close()

    def _serve(self, connection: socket.socket) -> None:
        """Answer one call after the other until the caller hangs up."""
        self._connections[threading.current_thread()] = connection
        try:
            with connection, connection.makefile("rb") as calls:
                while (call := _received(calls)) is not None:
                    connection.sendall(_packed_outcome(self._answer(*call)))
        except OSError:
            pass  # the caller is gone
        # A boundary: what goes wrong must be in the log, not lost with the thread.
        except Exception:
            _logger.exception("a connection of the socket failed")
        finally:
            del self._connections[threading.current_thread()]


def _packed_outcome(outcome: tuple[str, Any]) -> bytes:
    """The outcome as it travels. What can't be pickled is that call's matter alone: those behind it
    on the connection are answered."""
    try:
        return packed(outcome)
    # A boundary: pickling asks the value's own code.
    except Exception:
        _logger.exception("an answer can't be pickled")
        return packed(("unsupported_output", None))


def _start(work: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=work, args=arguments, name="socket", daemon=True).start()


def _received(calls: io.BufferedReader) -> tuple[Any, ...] | None:
    """The next call; None at the end of the connection."""
    prefix = calls.read(PREFIX_BYTES)
    if len(prefix) < PREFIX_BYTES:
        return None
    size = int.from_bytes(prefix, "little")
    content = calls.read(size)
    if len(content) < size:
        return None
    call: tuple[Any, ...] = pickle.loads(content)  # noqa: S301  # of our own user's processes only
    return call
