"""Client disconnects: what is done for a caller who has left, and nobody else, is cancelled."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.types import Receive

from gateway.cancellation import is_cancelled

_PATIENCE_S = 0.1


class CallerLeft(Exception):
    """The caller has disconnected: there is nobody to be told anything."""


def is_left(error: BaseException) -> bool:
    """Whether an error means that nobody waits for the answer any more: the caller has left, or
    whoever serves the request (Ray Serve, for one who left) has cancelled its task."""
    return isinstance(error, CallerLeft) or (
        isinstance(error, asyncio.CancelledError) and is_cancelled()
    )


class Departure:
    """Cancels the block that it is around when the caller disconnects; CallerLeft comes of that.

    To watch takes a task, which is much for a request of a millisecond; so it is done only for
    requests that take longer than a moment. The body must have been read: what `receive` gives
    then is the end of the connection (ASGI, `http.disconnect`).
    """

    def __init__(self, receive: Receive, *, patience_s: float = _PATIENCE_S) -> None:
        self._receive = receive
        self._patience_s = patience_s
        self._watcher: asyncio.Task[None] | None = None
        self._has_left = False

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        self._watched = asyncio.current_task()
        self._timer = loop.call_later(self._patience_s, self._begin)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._watcher is None:
            return
        self._watcher.cancel()
        # As `asyncio.timeout` does: the cancellation was ours, unless somebody else wants it too.
        if self._has_left and self._watched is not None:
            others = self._watched.uncancel()
            if kind is asyncio.CancelledError and not others:
                raise CallerLeft from error

    def _begin(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        message = await self._receive()
        while message["type"] != "http.disconnect":
            message = await self._receive()
        if self._watched is not None:
            self._has_left = True
            self._watched.cancel("the caller left")
