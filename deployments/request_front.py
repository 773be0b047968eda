"""What each HTTP request passes before Ray Serve's own machinery: our word on its Ray headers.

Ray reads per-request options from headers that any caller may send. Deadlines are the gateway's to
keep and to answer in its envelope, so Ray's is switched off for every request. Watching for callers
who leave costs Ray two tasks per request, a third of what an empty handler costs
(docs/5-performance.md); for predictions the gateway does it itself, where an answer takes long
(`gateway.http.departure`). Headers that Ray reads as text and that aren't any would be answered
with its plain 500; so would a WebSocket, in words of its own.

Loaded by Ray in the ingress' processes, through `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`
(ray/serve/_private/http_util.py, `configure_http_middlewares`). Tests of the hot path and of raw
requests (tests/integration, tests/fuzz) notice when that moves.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from gateway.errors import RouteNotFound
from gateway.http.problems import problem_of
from gateway.http.refusals import malformed_request
from gateway.http.request_identity import is_sane, request_id_of
from gateway.http.version_selection import RAY_HEADER, VERSION_HEADER, RawHeaders

ENVIRONMENT = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{__name__}:middlewares"}
"""What the ingress' process needs in its environment for Ray to find this."""

_RAY_DEADLINE = b"x-request-timeout-seconds"
_UNWATCHED = b"x-request-disconnect-disabled"
_NO_DEADLINE = (_RAY_DEADLINE, b"0")
_DO_NOT_WATCH = (_UNWATCHED, b"?1")

_REQUEST_ID = b"x-request-id"
_VERSION = VERSION_HEADER.lower().encode()
# Ray takes dashes for underscores.
_RAY_VERSIONS = frozenset({RAY_HEADER.encode(), RAY_HEADER.replace("_", "-").encode()})
_OURS = frozenset({_RAY_DEADLINE, _UNWATCHED, _REQUEST_ID, _VERSION}) | _RAY_VERSIONS


class RayRequestOptions:
    """Sets the headers by which Ray Serve takes its options, whatever the caller sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] == "websocket":
            await _refuse_websocket(scope, send)
            return
        if scope["type"] == "http":
            given = scope["headers"]
            headers = [each for each in given if each[0] not in _OURS and each[1].isascii()]
            if len(headers) < len(given):
                headers += _as_ray_can_read(given)
            headers.append(_NO_DEADLINE)
            if scope["path"].endswith("/predict"):
                headers.append(_DO_NOT_WATCH)
            scope["headers"] = headers
        await self._app(scope, receive, send)


def middlewares() -> list[Middleware]:
    """What Ray puts around its HTTP servers."""
    refuse_in_the_envelope()
    return [Middleware(RayRequestOptions)]


def refuse_in_the_envelope() -> None:
    """Have uvicorn refuse what it can't read (an unknown method, a control character in a header)
    with a problem document. It offers no option for that."""
    protocol: Any = AutoHTTPProtocol
    protocol.send_400_response = _send_400_response


def _send_400_response(protocol: Any, msg: str) -> None:
    protocol.transport.write(malformed_request())
    protocol.transport.close()


def _as_ray_can_read(given: RawHeaders) -> Iterator[tuple[bytes, bytes]]:
    """Ray's header for a version under our name, which Ray doesn't read; one request id, and a
    sane one, because Ray answers with whatever was sent."""
    identified = False
    for name, value in given:
        if name == _VERSION or name in _RAY_VERSIONS:
            yield _VERSION, value
        elif name == _REQUEST_ID and not identified:
            identified = True
            sane = is_sane(value.decode("latin-1"))
            yield name, value if sane else uuid.uuid4().hex.encode()


async def _refuse_websocket(scope: Scope, send: Send) -> None:
    """Answer the handshake with a problem document (ASGI, "WebSocket Denial Response")."""
    response = problem_of(scope, RouteNotFound("There are no WebSockets here."))
    response.headers["X-Request-ID"] = request_id_of(scope)
    start = {"status": response.status_code, "headers": response.raw_headers}
    await send({"type": "websocket.http.response.start", **start})
    await send({"type": "websocket.http.response.body", "body": bytes(response.body)})
