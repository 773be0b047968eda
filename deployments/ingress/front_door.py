"""The ingress at the front door: its own HTTP server takes callers' connections, with nothing in
between.

The socket is lent by the launcher (`deployments.cluster.front_door`), which says so when the
gateway is to end; where Ray stops this process by itself, it goes back.
"""

from __future__ import annotations

import asyncio
import resource

from starlette.types import ASGIApp

from deployments.serve.lent_socket import Loan, borrow
from gateway.http.server.bounded_protocol import ConnectionLimits
from gateway.http.server.http_server import HttpServer

_MOST_CONNECTIONS = 16_384
# Of the files that a process may have open: for everything but callers' connections.
_OTHER_FILES = 1024


class FrontDoorServer:
    """An HTTP server on a socket that is lent."""

    def __init__(self, server: HttpServer, loan: Loan) -> None:
        self._server = server
        self._loan = loan
        self._returning = asyncio.create_task(self._return())

    async def close(self) -> None:
        """Answer what has been accepted; then nobody is connected any more."""
        self._returning.cancel()
        await self._server.stop()
        self._loan.close()

    async def _return(self) -> None:
        await self._loan.ended()
        await self._server.drain()
        self._loan.close()


async def serve_at(address: str, app: ASGIApp, *, patience_s: float) -> FrontDoorServer:
    """Serve the socket that is lent at that address; raises OSError."""
    server = HttpServer(
        app, limits=ConnectionLimits(most=most_connections()), patience_s=patience_s
    )
    loan = await borrow(address)
    await server.start(loan.listener)
    return FrontDoorServer(server, loan)


def most_connections() -> int:
    """How many connections this process can have open at once; as many files as it may, but for a
    reserve."""
    files, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_CONNECTIONS + _OTHER_FILES
    if files < wanted:
        files = wanted if most_files == resource.RLIM_INFINITY else min(wanted, most_files)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most_files))
    return max(files // 2, min(files - _OTHER_FILES, _MOST_CONNECTIONS))
