"""Server-sent events: how a stream of answers is written as them.

As MLflow's own servers and OpenAI's write them: `data: {json}` for each, no names and no ids, and
`data: [DONE]` at the end. What goes wrong once the stream has begun is an event with an `error`
that has a `message`, where OpenAI's clients look for it. A comment now and then keeps a silent
connection open (HAProxy cuts one after 75 s). Must not import ray or mlflow.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import orjson
from starlette.types import Scope, Send

from gateway.errors import GatewayError
from gateway.http.predict.version_header import VERSION_HEADER
from gateway.http.problems import encodable, problem_of

MEDIA_TYPE = "text/event-stream"
SILENCE_S = 15.0

_DONE = b"data: [DONE]\n\n"
_COMMENT = b": still here\n\n"
_VERSION = VERSION_HEADER.lower().encode()


def problem_of_event(scope: Scope, error: GatewayError) -> dict[str, Any]:
    """What an event says of an error: the problem document, with a `message`."""
    document = orjson.loads(bytes(problem_of(scope, error).body))
    return {"error": {"message": error.detail, **document}}


class EventWriter:
    """Writes the events of one answer. `describe` makes an event of an error."""

    def __init__(
        self, send: Send, version: int, describe: Callable[[GatewayError], dict[str, Any]]
    ) -> None:
        self._send = send
        self._version = version
        self._describe = describe
        self.events = 0
        """How many were written."""

    async def write(self, events: AsyncGenerator[bytes], *, ends: bytes = _DONE) -> None:
        """The whole answer. Raises the GatewayError that it broke off with, which is told."""
        await self._send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    (b"content-type", MEDIA_TYPE.encode() + b"; charset=utf-8"),
                    (b"cache-control", b"no-cache"),
                    (b"x-accel-buffering", b"no"),
                    (_VERSION, b"%d" % self._version),
                ],
            }
        )
        try:
            async with aclosing(events):
                async for event in _with_comments(events):
                    self.events += event is not None
                    await self._put(_COMMENT if event is None else b"data: " + event + b"\n\n")
        except GatewayError as error:
            told = orjson.dumps(encodable(self._describe(error)))
            await self._put(b"data: " + told + b"\n\n" + ends, more=False)
            raise
        await self._put(ends, more=False)

    async def _put(self, data: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


async def _with_comments(events: AsyncGenerator[bytes]) -> AsyncIterator[bytes | None]:
    """The events, and None for each silence."""
    coming: asyncio.Task[bytes | None] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(events, None))
            done, _ = await asyncio.wait([coming], timeout=SILENCE_S)
            if not done:
                yield None
                continue
            event, coming = coming.result(), None
            if event is None:
                return
            yield event
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.wait([coming])
            if not coming.cancelled():
                coming.exception()  # nobody is there to be told
