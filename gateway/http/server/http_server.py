"""The gateway's own HTTP server: uvicorn, in an event loop that others use too, over a socket that
listens already.

Must not import ray.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn
from starlette.types import ASGIApp

from gateway.http.server.bounded_protocol import BoundedProtocol, ConnectionLimits, Connections

_LOOK_S = 1.0
_POLL_S = 0.01

# Whose connection is kept alive, and who is between two requests, has one more answer to get.
_QUIET_S = 0.5


class _Uvicorn(uvicorn.Server):
    """uvicorn's server, where signals are somebody else's, and others wait for its start."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.has_started = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`."""
        await super().startup(sockets)
        self.has_started.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """See `uvicorn.Server`."""
        yield


class HttpServer:
    """Serves an application; what it has accepted is answered before it ends, or for as long as
    `patience_s`."""

    def __init__(
        self, app: ASGIApp, *, limits: ConnectionLimits | None = None, patience_s: float
    ) -> None:
        limits = limits or ConnectionLimits()
        config = uvicorn.Config(
            app,
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            proxy_headers=False,  # `gateway.http.placement` says who is believed
            server_header=False,
            access_log=False,
            log_config=None,
            log_level=logging.CRITICAL,  # the boundary has logged what goes wrong
            timeout_keep_alive=int(limits.silence_s),
        )
        self._patience_s = patience_s
        self._deadline: float | None = None
        self._server = _Uvicorn(config)
        self._server.server_state = self._connections = Connections(limits)
        self._tasks: list[asyncio.Task[None]] = []
        self._listener: socket.socket | None = None

    async def start(self, listener: socket.socket) -> None:
        """Take connections from this socket, which is the server's from now on."""
        loop = asyncio.get_running_loop()
        self._listener = listener
        serving = loop.create_task(self._server.serve(sockets=[listener]))
        self._tasks = [serving, loop.create_task(self._look())]
        started = loop.create_task(self._server.has_started.wait())
        await asyncio.wait((serving, started), return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            started.cancel()
            await serving  # which raises

    async def drain(self) -> None:
        """Take no more connections; returns when all requests have been answered and none has come
        for a moment, or when patience is at its end."""
        self._connections.close()
        for server in self._server.servers:
            server.close()
        if self._listener is not None:
            self._listener.close()
        now = quiet_since = time.monotonic()
        self._deadline = now + self._patience_s
        while now - quiet_since < _QUIET_S and now < self._deadline:
            await asyncio.sleep(_POLL_S)
            now = time.monotonic()
            if self._connections.under_way:
                quiet_since = now

    async def stop(self) -> None:
        """Drain, close all connections, and end."""
        if not self._tasks:
            return
        if not self._connections.is_closing:
            await self.drain()
        serving, looking = self._tasks
        # What is left of it: who doesn't read isn't waited for twice.
        assert self._deadline is not None
        left_s = max(0, math.ceil(self._deadline - time.monotonic()))
        self._server.config.timeout_graceful_shutdown = left_s
        self._server.should_exit = True
        with suppress(asyncio.CancelledError):
            await serving
        looking.cancel()

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_S)
            self._connections.look(loop.time())
