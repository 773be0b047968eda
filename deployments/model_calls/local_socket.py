"""The ingress' connections to models' processes on the same machine, past the replica.

A process that was called by handle first may be called directly next: its address comes with the
answer. While that goes on, one call by handle (`ModelHost.attend`) is on its way all the time, so
that Ray sees a replica that is busy, and so that a replica which Ray has replaced is left within a
second. Only for applications with one replica at most: among several, Ray chooses.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from contextvars import Context

from deployments.model_process.framing import Message
from deployments.model_replica.connection import Connections
from deployments.serve.ports import CallLost, ReplicaHandle

_logger = logging.getLogger(__name__)

_ATTEND_S = 1.0
_IDLE_S = 2.0


class LocalSockets:
    """Connections to the processes of one application's replica, one per version, by its key
    (see `version_key`)."""

    def __init__(self, handle: ReplicaHandle) -> None:
        self._handle = handle
        self._replica: str | None = None
        self._addresses: dict[str, str] = {}
        self._connections: dict[str, Connections] = {}
        self._left: list[Connections] = []
        self._attending: asyncio.Task[None] | None = None
        self._used_at = 0.0

    def learn(self, key: str, address: str) -> None:
        """The version of that key is at that address; have the next calls go there."""
        if self._addresses.get(key) != address:
            self._forget(key)
            self._addresses[key] = address
        self._used_at = time.monotonic()
        if self._attending is None:
            self._attending = asyncio.create_task(self._attend_while_used(), context=Context())

    async def call(self, key: str, message: bytes) -> Message | None:
        """The packed outcome of one packed call; None where it can't be called here.

        Raises ConnectionError where the process went away with the call.
        """
        connections = self._connections_to(key)
        if connections is None:
            return None
        with self._forgetting(key):
            return await connections.call(message)

    def stream(self, key: str, message: bytes) -> AsyncGenerator[Message] | None:
        """The same for a packed call that streams: its packed outcomes, without end."""
        connections = self._connections_to(key)
        return None if connections is None else self._streamed(key, connections, message)

    async def _streamed(
        self, key: str, connections: Connections, message: bytes
    ) -> AsyncGenerator[Message]:
        with self._forgetting(key):
            async with aclosing(connections.stream(message)) as outcomes:
                async for outcome in outcomes:
                    yield outcome

    def _connections_to(self, key: str) -> Connections | None:
        if self._replica is None:
            return None
        known = self._connections.get(key)
        if known is None and (address := self._addresses.get(key)) is not None:
            known = self._connections[key] = Connections(address)
        if known is not None:
            self._used_at = time.monotonic()
        return known

    @contextmanager
    def _forgetting(self, key: str) -> Iterator[None]:
        """One who is gone is asked no more: the replica knows who comes after it."""
        try:
            yield
        except ConnectionError:
            self._forget(key)
            raise

    def _forget(self, key: str) -> None:
        self._addresses.pop(key, None)
        connections = self._connections.pop(key, None)
        if connections is not None:
            connections.leave()
            self._left = [each for each in (*self._left, connections) if each.is_busy]

    @property
    def _is_in_use(self) -> bool:
        busy = any(each.is_busy for each in (*self._connections.values(), *self._left))
        return busy or time.monotonic() - self._used_at < _IDLE_S

    async def _attend_while_used(self) -> None:
        try:
            self._replica = name = await self._handle.call("attend", 0.0)
            while name == self._replica and self._is_in_use:
                name = await self._handle.call("attend", _ATTEND_S)
        except CallLost as lost:
            _logger.info("a replica is not attended any more: %s", lost)
        finally:
            self._hang_up()
            self._attending = None

    def _hang_up(self) -> None:
        """Nothing new goes to the processes; what is on its way is still answered."""
        self._replica = None
        for key in list(self._addresses):
            self._forget(key)
