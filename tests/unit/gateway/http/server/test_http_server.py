"""The server's end, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from gateway.http.server.http_server import HttpServer

PATIENCE_S = 1.0


async def test_who_doesn_t_read_is_waited_for_once() -> None:
    """Patience is that of the whole end: what draining has used of it, stopping doesn't have."""
    asked = asyncio.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        asked.set()
        while True:
            await send({"type": "http.response.body", "body": b"a" * 65_536, "more_body": True})

    server = HttpServer(endless, patience_s=PATIENCE_S)
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    await server.start(listener)
    with socket.create_connection(address) as caller:
        caller.sendall(b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n")
        await asked.wait()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await server.drain()
        await server.stop()
        assert PATIENCE_S <= loop.time() - began < 2 * PATIENCE_S
