"""Write coalescing: an answer's head and body in one write.

uvicorn writes the head and the body of an answer one after the other, and uvloop hands each to the
system at once: two calls, two packets, two awakenings of whoever reads them. For a small answer
that is a third of what its ingress does for it (docs/5-performance.md). Must not import ray.
"""

from __future__ import annotations

import asyncio
from typing import Any

_HEAD = b"HTTP/1.1 "
_SMALL = 65_536


class JoinedWrites:
    """A transport around another: a head that is written waits for what is written next, if that
    comes before the event loop's next turn. All else is the transport's own."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._head = b""

    def write(self, data: bytes) -> None:
        """See `asyncio.WriteTransport`."""
        if self._head:
            head, self._head = self._head, b""
            if len(data) <= _SMALL:
                self._transport.write(head + data)
                return
            self._transport.write(head)
        elif data.startswith(_HEAD):
            self._head = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def write_whole(self, data: bytes) -> None:
        """Write an answer that is whole already."""
        self._flush()
        self._transport.write(data)

    def close(self) -> None:
        """See `asyncio.Transport`: what was written is sent before."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
