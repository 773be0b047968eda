"""The caller's end of a connection to a model's process (see `model_process.call_server`).

Asyncio only; must not import ray.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from contextvars import Context
from typing import cast

from deployments.model_process.call_server import is_same_user
from deployments.model_process.channel import socket_address
from deployments.model_process.framing import Inbox, MalformedMessage, Message

# Calls on their way on a connection: one at work and one that waits for it in the socket.
_SENT = 2


class Connection(asyncio.Protocol):
    """Calls of one version, answered in their order, over a socket that is connected."""

    def __init__(self, ours: socket.socket) -> None:
        self.is_lost = False
        self._is_left = False
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[bytes, asyncio.Future[Message]]] = deque()
        self._sent: deque[asyncio.Future[Message]] = deque()
        self._inbox = Inbox()
        self._opening = asyncio.create_task(self._open(ours), context=Context())

    async def call(self, message: bytes) -> Message:
        """The packed outcome of one packed call; raises ConnectionError where the process hangs up
        before, or answers what is no outcome."""
        if self.is_lost:
            raise ConnectionResetError
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting.append((message, future))
        self._send()
        return await future

    def leave(self) -> None:
        """Hang up once all calls are answered."""
        self._is_left = True
        self._close_if_done()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)
        self._send()
        self._close_if_done()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._inbox.feed(data)
        try:
            while (message := self._inbox.next()) is not None:
                self._take(message)
        except (MalformedMessage, IndexError):  # nonsense, or more than was asked
            assert self._transport is not None
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.is_lost = True
        for future in (*self._sent, *(future for _, future in self._waiting)):
            if not future.done():
                future.set_exception(ConnectionResetError())
        self._sent.clear()
        self._waiting.clear()

    async def _open(self, ours: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=ours)
        except OSError as error:
            ours.close()
            self.connection_lost(error)

    def _take(self, message: Message) -> None:
        future = self._sent.popleft()
        if not future.done():
            future.set_result(message)
        self._send()
        self._close_if_done()

    def _send(self) -> None:
        """As many as may be on their way; those whose callers have left are dropped."""
        while self._transport is not None and self._waiting and len(self._sent) < _SENT:
            content, future = self._waiting.popleft()
            if not future.done():
                self._sent.append(future)
                self._transport.write(content)

    def _close_if_done(self) -> None:
        if self._is_left and not self._sent and not self._waiting and self._transport is not None:
            self._transport.close()


def connected_socket(address: str) -> socket.socket | None:
    """A connection to who listens at that address; None where it is not of this machine, or
    gone."""
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    try:
        ours.connect(socket_address(address))
    except OSError:
        ours.close()
        return None
    if not is_same_user(ours):
        ours.close()
        return None
    return ours
