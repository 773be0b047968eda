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
from contextvars import Context

from deployments.model_process.framing import Message
from deployments.model_replica.connection import Connection, connected_socket
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
        self._connections: dict[str, Connection] = {}
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
        connection = self._connection(key)
        return None if connection is None else await connection.call(message)

    def _connection(self, key: str) -> Connection | None:
        if self._replica is None:
            return None
        known = self._connections.get(key)
        if known is not None and not known.is_lost:
            self._used_at = time.monotonic()
            return known
        address = self._addresses.get(key)
        ours = None if address is None else connected_socket(address)
        if ours is None:  # gone, or on another machine: the replica knows who comes after it
            self._forget(key)
            return None
        self._used_at = time.monotonic()
        connection = self._connections[key] = Connection(ours)
        return connection

    def _forget(self, key: str) -> None:
        self._addresses.pop(key, None)
        connection = self._connections.pop(key, None)
        if connection is not None:
            connection.leave()

    async def _attend_while_used(self) -> None:
        try:
            self._replica = name = await self._handle.call("attend", 0.0)
            while name == self._replica and time.monotonic() - self._used_at < _IDLE_S:
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
