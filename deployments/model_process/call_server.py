"""Unix-socket server of a model's process: answers calls, in the main thread or beside each other.

Several processes may be connected (ingress replicas, the supervisor); each sends calls and gets
their outcomes in that order. Only processes of the same user are answered. Who doesn't read his
answers is asked nothing more, and holds nobody else up.

A call says how many calls the process may answer at once (`messages.Call`). Where that is one, it
is answered in the main thread, in which the model was loaded; else in a thread of its own, and so
is a stream. Reading, writing and deciding are the main thread's alone: the others hand over what
is to be written, and hear of a caller who has hung up. One who waits for a slot waits in the order
in which he came.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from .framing import Inbox, MalformedMessage, Message
from .messages import demand_of
from .workers import Workers

_PIECE_BYTES = 256 * 1024
_PEER = "3i"  # struct ucred: pid, uid, gid (unix(7), SO_PEERCRED)


def is_same_user(connection: socket.socket) -> bool:
    """Whether the process at the other end belongs to the user of this one. Where the system can't
    tell, the rights of the socket's file decide."""
    if sys.platform != "linux":
        return True
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(_PEER))
    return bool(struct.unpack(_PEER, peer)[1] == os.getuid())


class Answering(NamedTuple):
    """What answers calls; neither may raise.

    `answer` makes a packed outcome of a call. `stream` makes those of one that streams, and is
    closed where nobody wants more.
    """

    answer: Callable[[Message], bytes]
    stream: Callable[[Message], Iterator[bytes]]


class CallServer:
    """Serves until the supervisor hangs up or asks for an end. `control` is the connection to the
    supervisor."""

    def __init__(
        self, listener: socket.socket, control: socket.socket, answering: Answering
    ) -> None:
        self.answering = answering
        self.selector = selectors.DefaultSelector()
        self._listener = listener
        self._control = control
        self._is_ending = False
        self._workers = Workers()
        self._busy = 0
        self._queue: deque[_Connection] = deque()
        self._handed_over: deque[tuple[_Connection, bytes, bool]] = deque()
        self._awakened, self._awaken = socket.socketpair()
        self._awaken.setblocking(False)
        self.was_asked = False
        ours = ((listener, self._accept), (control, self._hear), (self._awakened, self._take_over))
        for each, ready in ours:
            each.setblocking(False)
            self.selector.register(each, selectors.EVENT_READ, ready)

    def serve(self) -> None:
        """Answer calls; once an end is asked for, those that have come are answered still."""
        while not self._is_ending:
            ready = self.selector.select(0 if self.was_asked and not self._busy else None)
            for key, _ in ready:
                key.data()
            if self.was_asked and not ready and not self._busy:
                return

    def leave(self) -> None:
        """In a process that a model has forked of this one: all connections are its parent's. If it
        comes back here, it has nothing to answer any more, and ends."""
        for key in [*self.selector.get_map().values()]:
            key.fileobj.close()  # type: ignore[union-attr]
        self.selector.close()

    def begin(self, connection: _Connection, message: Message) -> bytes | None:
        """The answer, where it is made at once; else it will come, when there is a slot for it."""
        demand = demand_of(message.header)
        if self._busy >= demand.slots:
            connection.pending = message
            self._queue.append(connection)
            return None
        if demand.slots == 1 and not demand.streams:
            return self.answering.answer(message)
        self._busy += 1
        work = connection.stream if demand.streams else connection.answer
        self._workers.run(lambda: work(message))
        return None

    def hand_over(self, connection: _Connection, data: bytes, is_last: bool) -> None:
        """Called in any thread: have it written, and the next one answered after the last."""
        self._handed_over.append((connection, data, is_last))
        with suppress(BlockingIOError):  # it is awake, then
            self._awaken.send(b"!")

    def _take_over(self) -> None:
        with suppress(BlockingIOError):
            self._awakened.recv(_PIECE_BYTES)
        while self._handed_over:
            connection, data, is_last = self._handed_over.popleft()
            connection.put(data, is_last)
            if is_last:
                self._busy -= 1
                self._begin_waiting()

    def _begin_waiting(self) -> None:
        """Who waited longest goes first; he may find that there is no slot for him still."""
        for _ in range(len(self._queue)):
            connection = self._queue.popleft()
            connection.resume()

    def _accept(self) -> None:
        with suppress(OSError):  # it left again
            connection, _ = self._listener.accept()
            if is_same_user(connection):
                _Connection(connection, self)
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
        self.selector.unregister(self._listener)
        self._listener.close()


class _Connection:
    """One caller: calls are read while his answers are taken, and answered one after another."""

    def __init__(self, connection: socket.socket, server: CallServer) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._server = server
        self._inbox = Inbox()
        self._unsent = memoryview(b"")
        self._is_left = False
        self._is_answering = False
        self.pending: Message | None = None
        """A call that waits for a slot."""
        # Whether the thread of a stream may go on: what it made is written, or its caller has left.
        self._has_room = threading.Event()
        self._has_room.set()
        server.selector.register(connection, selectors.EVENT_READ, self._read)

    def answer(self, message: Message) -> None:
        """In a thread: have the answer written."""
        self._server.hand_over(self, self._server.answering.answer(message), True)

    def stream(self, message: Message) -> None:
        """In a thread: have each piece written when it is there, until the caller leaves."""
        pieces = self._server.answering.stream(message)
        try:
            for piece in pieces:
                self._has_room.clear()
                self._server.hand_over(self, piece, False)
                self._has_room.wait()
                if self._is_left:
                    break
        finally:
            pieces.close()  # type: ignore[attr-defined]
            self._server.hand_over(self, b"", True)

    def put(self, data: bytes, is_last: bool) -> None:
        """Write what a thread has made."""
        if is_last:
            self._is_answering = False
        if self._is_left:
            self._has_room.set()
            return
        self._unsent = memoryview(bytes(self._unsent) + data if self._unsent else data)
        self._write()

    def resume(self) -> None:
        """There may be a slot for the call that waits for one."""
        message, self.pending = self.pending, None
        self._is_answering = False
        if message is not None and not self._is_left:
            self._guarded(lambda: self._begin(message))
            self._answer_all()

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
        self._guarded(self._answer_next)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (OSError, MalformedMessage):
            self._close()

    def _answer_next(self) -> None:
        while not self._unsent and not self._is_answering and not self._is_left:
            message = self._inbox.next()
            if message is None:
                return
            self._begin(message)

    def _begin(self, message: Message) -> None:
        self._is_answering = True
        answer = self._server.begin(self, message)
        if answer is not None:
            self._is_answering = False
            self._unsent = memoryview(answer)
            self._send()
            self._listen()

    def _write(self) -> None:
        self._guarded(self._send)
        if self._is_left:
            return
        self._listen()
        if not self._unsent:
            self._answer_all()

    def _send(self) -> None:
        with suppress(BlockingIOError):
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]

    def _listen(self) -> None:
        """Nothing is read while there is something to write, which tells of who has left, too."""
        wanted = selectors.EVENT_WRITE if self._unsent else selectors.EVENT_READ
        ready = self._write if self._unsent else self._read
        self._server.selector.modify(self._socket, wanted, ready)
        if len(self._unsent) < _PIECE_BYTES:
            self._has_room.set()
        else:
            self._has_room.clear()

    def _close(self) -> None:
        self._is_left = True
        self._has_room.set()
        with suppress(KeyError, ValueError):
            self._server.selector.unregister(self._socket)
        self._socket.close()
