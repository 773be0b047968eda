"""Unix-socket server of a model's process: answers calls one at a time, in the main thread.

Several processes may be connected (ingress replicas, the supervisor); each sends calls and gets
their outcomes in that order. Only processes of the same user are answered. Who doesn't read his
answers is asked nothing more, and holds nobody else up.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress

from .framing import Inbox, MalformedMessage, Message

_PIECE_BYTES = 256 * 1024
_PEER = "3i"  # struct ucred: pid, uid, gid (unix(7), SO_PEERCRED)


def is_same_user(connection: socket.socket) -> bool:
    """Whether the process at the other end belongs to the user of this one. Where the system can't
    tell, the rights of the socket's file decide."""
    if sys.platform != "linux":
        return True
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(_PEER))
    return bool(struct.unpack(_PEER, peer)[1] == os.getuid())


class CallServer:
    """Serves until the supervisor hangs up or asks for an end.

    `answer` makes a packed outcome of a call; it must not raise. `control` is the connection to the
    supervisor.
    """

    def __init__(
        self, listener: socket.socket, control: socket.socket, answer: Callable[[Message], bytes]
    ) -> None:
        self._answer = answer
        self._listener = listener
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._is_ending = False
        self.was_asked = False
        for each, ready in ((listener, self._accept), (control, self._hear)):
            each.setblocking(False)
            self._selector.register(each, selectors.EVENT_READ, ready)

    def serve(self) -> None:
        """Answer calls; once an end is asked for, those that have come are answered still."""
        while not self._is_ending:
            ready = self._selector.select(0 if self.was_asked else None)
            for key, _ in ready:
                key.data()
            if self.was_asked and not ready:
                return

    def _accept(self) -> None:
        with suppress(OSError):  # it left again
            connection, _ = self._listener.accept()
            if is_same_user(connection):
                _Connection(connection, self._selector, self._answer)
            else:
                connection.close()

    def _hear(self) -> None:
        """The supervisor says only one thing; its end ends this process."""
        try:
            said = self._control.recv(_PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            self._is_ending = True
            return
        self.was_asked = True
        self._selector.unregister(self._listener)
        self._listener.close()


class _Connection:
    """One caller: reads calls while his answers are taken."""

    def __init__(
        self,
        connection: socket.socket,
        selector: selectors.BaseSelector,
        answer: Callable[[Message], bytes],
    ) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._selector = selector
        self._answer = answer
        self._inbox = Inbox()
        self._unsent = memoryview(b"")
        selector.register(connection, selectors.EVENT_READ, self._read)

    def _read(self) -> None:
        try:
            data = self._socket.recv(_PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close()
            return
        self._inbox.feed(data)
        self._answer_all()

    def _answer_all(self) -> None:
        try:
            while not self._unsent:
                message = self._inbox.next()
                if message is None:
                    return
                self._unsent = memoryview(self._answer(message))
                self._send()
            self._selector.modify(self._socket, selectors.EVENT_WRITE, self._write)
        except (OSError, MalformedMessage):
            self._close()

    def _send(self) -> None:
        with suppress(BlockingIOError):
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]

    def _write(self) -> None:
        try:
            self._send()
        except OSError:
            self._close()
            return
        if not self._unsent:
            self._selector.modify(self._socket, selectors.EVENT_READ, self._read)
            self._answer_all()

    def _close(self) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(self._socket)
        self._socket.close()
