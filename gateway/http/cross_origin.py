"""Pages of other origins: what a browser is told so that it lets a page read answers.

The CORS protocol of https://fetch.spec.whatwg.org/#http-cors-protocol. Requests are made without
credentials of the browser's: a key travels in a header that the page sets itself, and no answer
ever allows cookies, with whatever origins. Must not import ray or mlflow.
"""

from __future__ import annotations

import re
from collections.abc import Collection, MutableMapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.http.predict.version_header import VERSION_HEADER
from gateway.http.request_identity import REQUEST_ID_HEADER

EVERYBODY = "*"

ORIGIN_PATTERN = r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?"
"""A scheme, a host and, unless it is the scheme's, a port, as browsers send it; no path."""

_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
_EXPOSED = ", ".join(
    (VERSION_HEADER, REQUEST_ID_HEADER, "Server-Timing", "Retry-After", "ETag", "WWW-Authenticate")
).encode()
_REMEMBERED_S = b"600"
# Header names as the protocol lists them; what else comes isn't repeated.
_NAMES = re.compile(rb"[A-Za-z0-9_!#$%&'*+.^`|~, -]{1,4096}")


class CrossOrigin:
    """An application around another whose answers pages of `origins` may read (`*`: all pages).

    A preflight of theirs is answered here: no route is asked, and no key, which comes with none.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origin.lower().encode() for origin in origins)
        self._everybody = EVERYBODY.encode() in self._origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or have the application answer and tell who may read that."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        told = self._told_to(_header(scope, b"origin"))
        if told and _is_preflight(scope):
            headers = [*told, *_granted(scope)]
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body"})
            return

        async def telling(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                exposed = [(b"access-control-expose-headers", _EXPOSED)] if told else []
                varies = [] if self._everybody else [(b"vary", b"Origin")]
                message["headers"] = [*message.get("headers", ()), *told, *exposed, *varies]
            await send(message)

        await self._app(scope, receive, telling)

    def _told_to(self, origin: bytes | None) -> list[tuple[bytes, bytes]]:
        """Who may read, for a page of that origin; nothing where it may not."""
        if origin is None:
            return []
        if self._everybody:
            return [(b"access-control-allow-origin", b"*")]
        if origin.lower() not in self._origins:
            return []
        return [(b"access-control-allow-origin", origin)]


def told_without_origin(origins: Collection[str]) -> bytes:
    """The line in the head of an answer to a request of no page's."""
    return b"" if not origins or EVERYBODY in origins else b"vary: Origin\r\n"


def _is_preflight(scope: Scope) -> bool:
    asked = _header(scope, b"access-control-request-method")
    return scope["method"] == "OPTIONS" and asked is not None


def _granted(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Whatever headers are asked for: clients have their own, and none gives a caller more than
    they could send without a browser."""
    granted = [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-max-age", _REMEMBERED_S),
        (b"vary", b"Origin, Access-Control-Request-Headers"),
    ]
    wanted = _header(scope, b"access-control-request-headers")
    if wanted and _NAMES.fullmatch(wanted):
        granted.append((b"access-control-allow-headers", wanted))
    return granted


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    return next((value for name, value in scope["headers"] if name == wanted), None)
