"""The caller's end of connections to a model's process (see `model_process.call_server`).

Asyncio only; must not import ray.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from contextvars import Context
from typing import cast

from deployments.model_process.call_server import is_same_user
from deployments.model_process.channel import socket_address
from deployments.model_process.framing import Inbox, MalformedMessage, Message
from deployments.model_process.messages import demand_of_packed

# Calls on their way on a connection: one at work and one that waits for it in the socket.
_SENT = 2
_PIECE_BYTES = 256 * 1024


class Connections:
    """Calls of one version by its process's address: over one connection where the process answers
    one call at a time, else over as many as there are calls at once. A stream has one of its own,
    and hangs up to leave. Raises ConnectionError where the process is gone."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._one: Connection | None = None
        self._idle: list[Connection] = []
        self._slots = 0
        self._turns = asyncio.Semaphore(1)
        self._busy = 0

    @property
    def is_busy(self) -> bool:
        """Whether anything is on its way."""
        return self._busy > 0

    async def call(self, message: bytes) -> Message:
        """The packed outcome of a packed call."""
        slots = demand_of_packed(message).slots
        self._busy += 1
        try:
            if slots == 1:
                return await self._shared().call(message)
            async with self._turn(slots):
                return await self._call_alone(message)
        finally:
            self._busy -= 1

    async def stream(self, message: bytes) -> AsyncGenerator[Message]:
        """The packed outcomes of a packed call that streams, without end: who has the last one is
        to close this."""
        self._busy += 1
        try:
            async with (
                self._turn(demand_of_packed(message).slots),
                aclosing(_outcomes(self._connected(), message)) as outcomes,
            ):
                async for outcome in outcomes:
                    yield outcome
        finally:
            self._busy -= 1

    def leave(self) -> None:
        """Hang up once all calls are answered."""
        one, self._one = self._one, None
        for connection in (one, *self._idle):
            if connection is not None:
                connection.leave()
        self._idle = []

    @asynccontextmanager
    async def _turn(self, slots: int) -> AsyncIterator[None]:
        """One of as many turns as the process has slots: it would only let the others wait."""
        if slots != self._slots:
            self._slots, self._turns = slots, asyncio.Semaphore(slots)
        async with self._turns:
            yield

    def _shared(self) -> Connection:
        if self._one is None or self._one.is_lost:
            self._one = Connection(self._connected())
        return self._one

    async def _call_alone(self, message: bytes) -> Message:
        idle = [connection for connection in self._idle if not connection.is_lost]
        connection = idle.pop() if idle else Connection(self._connected())
        self._idle = idle
        is_answered = False
        try:
            answer = await connection.call(message)
            is_answered = True
            return answer
        finally:
            if is_answered:
                self._idle.append(connection)
            else:
                connection.leave()

    def _connected(self) -> socket.socket:
        ours = connected_socket(self._address)
        if ours is None:
            raise ConnectionResetError
        return ours


async def _outcomes(ours: socket.socket, message: bytes) -> AsyncGenerator[Message]:
    """What comes over a connection of its own, read no faster than it is taken."""
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    try:
        writer.write(message)
        inbox = Inbox()
        while True:
            while (outcome := inbox.next()) is not None:
                yield outcome
            data = await reader.read(_PIECE_BYTES)
            if not data:
                raise ConnectionResetError
            inbox.feed(data)
    except MalformedMessage as error:
        raise ConnectionResetError from error
    finally:
        writer.close()


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
