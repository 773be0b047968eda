"""The ingress' end of a replica's socket: a line to the one replica of an application.

What is asked by handle first may be asked on the line next: see
`deployments.model_replica.socket_server`. A line is there while it is used, and attended: one call
by handle, `ModelHost.attend`, is on its way all the time, so that Ray sees a replica that is busy,
and so that a replica which Ray has replaced is left within a second. Only for applications with one
replica at most: among several, Ray chooses."""

from __future__ import annotations

import asyncio
import logging
import time
from contextvars import Context

from deployments.model_calls.outcomes import Outcome
from deployments.model_calls.socket_connection import Connection, connected_socket
from deployments.model_replica.call import ModelCall
from deployments.model_replica.socket_server import is_supported
from deployments.serve.ports import CallLost, ReplicaHandle

_logger = logging.getLogger(__name__)

_ATTEND_S = 1.0
_IDLE_S = 2.0
_TRY_AGAIN_S = 30.0


class SocketLine:
    """Connections to the replica of an application, one for each version that is asked for."""

    def __init__(self, handle: ReplicaHandle) -> None:
        self._handle = handle
        self._socket_name: str | None = None
        self._connections: dict[str, Connection] = {}
        self._attending: asyncio.Task[None] | None = None
        self._used_at = 0.0
        self._try_again_at = 0.0

    def keep(self) -> None:
        """Have the line there for the next calls, beside whatever is asked for now."""
        if self._attending is None and is_supported() and time.monotonic() > self._try_again_at:
            self._attending = asyncio.create_task(self._attend_while_used(), context=Context())

    async def predict(self, call: ModelCall) -> Outcome | None:
        """What came of one call; None where it can't be answered on the line.

        Raises ConnectionError where the replica went away with the call.
        """
        connection = self._connection(call.fingerprint)
        if connection is None:
            return None
        outcome = await connection.call(*call)
        return None if outcome[0] == "absent" else outcome

    def _connection(self, fingerprint: str) -> Connection | None:
        if self._socket_name is None:
            return None
        self._used_at = time.monotonic()
        known = self._connections.get(fingerprint)
        if known is not None and not known.is_lost:
            return known
        ours = connected_socket(self._socket_name)
        if ours is None:  # gone; Ray will tell who comes after it
            self._hang_up()
            return None
        connection = self._connections[fingerprint] = Connection(ours)
        return connection

    async def _attend_while_used(self) -> None:
        try:
            name = await self._handle.call("attend", 0.0)
            while self._follow(name) and time.monotonic() - self._used_at < _IDLE_S:
                name = await self._handle.call("attend", _ATTEND_S)
        except CallLost as lost:
            _logger.info("a line is not attended any more: %s", lost)
        finally:
            self._hang_up()
            self._attending = None

    def _follow(self, name: str | None) -> bool:
        """Ask the replica that Ray sent us to from now on; False where it can't be reached."""
        if name == self._socket_name:
            return name is not None
        self._hang_up()
        probe = None if name is None else connected_socket(name)
        if probe is None:
            self._try_again_at = time.monotonic() + _TRY_AGAIN_S
            return False
        probe.close()
        self._socket_name = name
        self._used_at = time.monotonic()
        return True

    def _hang_up(self) -> None:
        """Nothing new goes to the replica; what is on its way is still answered."""
        self._socket_name = None
        for connection in self._connections.values():
            connection.leave()
        self._connections = {}
