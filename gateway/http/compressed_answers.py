"""Answers to GET in the coding that a caller asks for: documents of many models, lists, pages.

Predictions compress theirs by themselves (`gateway.http.predict.answering`). Must not import ray or
mlflow.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any, TypeAlias

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.http.predict.compression import WORTH_BYTES, packed
from gateway.http.predict.version_header import RawHeaders

_Message: TypeAlias = MutableMapping[str, Any]

_OK = 200
_TEXTS = re.compile(
    rb"text/.*|application/(?:.*\+)?(?:json|javascript|xml)|image/svg\+xml|.*metrics.*"
)
_VARIES = (b"vary", b"Accept-Encoding")


class CompressedAnswers:
    """An application around another whose texts are compressed where that is asked for and worth
    it. An entity tag is a weak one then: the octets are others (RFC 9110, section 8.8.3.3)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the application answer, and hold that back until it is whole."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        held: _Message | None = None
        parts: list[bytes] = []

        async def packing(message: _Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start" and _is_worth_it(message):
                held = message
                return
            if held is None:
                await send(message)
                return
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                await _send_whole(held, b"".join(parts), scope["headers"], send)

        await self._app(scope, receive, packing)


def _is_worth_it(start: _Message) -> bool:
    said = {name.lower(): value for name, value in start["headers"]}
    is_text = _TEXTS.fullmatch(said.get(b"content-type", b"").partition(b";")[0])
    is_long = int(said.get(b"content-length", b"0")) >= WORTH_BYTES
    return bool(start["status"] == _OK and is_text and is_long and b"content-encoding" not in said)


async def _send_whole(start: _Message, body: bytes, asked: RawHeaders, send: Send) -> None:
    """Of a file's HEAD nobody knows what its body would become: no length is said."""
    body, coding = await packed(body, asked)
    is_known = bool(body)
    headers = [
        (name, b"W/" + value if coding and name == b"etag" and value[:1] == b'"' else value)
        for name, value in start["headers"]
        if name != b"content-length"
    ]
    told = [each for each in coding if each[0] != b"vary"]
    length = [(b"content-length", b"%d" % len(body))] if is_known else []
    await send({**start, "headers": [*headers, *told, _VARIES, *length]})
    await send({"type": "http.response.body", "body": body})
