"""ASGI middleware before Ray Serve's own: answers predictions, overrides Ray's request headers.

Ray reads per-request options from headers that any caller may send. Deadlines are the gateway's to
keep and to answer in its envelope, so Ray's is switched off for every request. Watching for callers
who leave costs Ray two tasks per request, a third of what an empty handler costs
(docs/5-performance.md).

Predictions are answered right here, before Ray's machinery (request ids, contexts, queues, metrics:
two thirds of what an empty handler costs). What Ray does for a request the gateway does for these
by itself: `gateway.http.predict.disconnect` watches for callers who leave, and when the replica is
stopped its HTTP server ends what was accepted (uvicorn's graceful shutdown, which Ray waits for).

Its HTTP server's connections are `gateway.http.server.protocol`, which answers small predictions
by itself.

What Ray and uvicorn would answer in words of their own is kept from them or answered here: headers
that Ray reads as text and that are none, WebSockets, what isn't HTTP (docs/decisions/0022). What
Ray says all the same becomes a problem document, and so does its silence: where an application
raises, Ray logs that and answers nothing, for which uvicorn has a plain 500.

Loaded by Ray in the ingress' processes, through `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`
(ray/serve/_private/http_util.py, `configure_http_middlewares`; docs/11-ray-internals.md).
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import HTTP_PROTOCOLS

from deployments.ingress.plain_answers import is_plain
from gateway.errors import GatewayUnavailable, InternalError, RouteNotFound
from gateway.http.boundary import Boundary
from gateway.http.predict.disconnect import CallerLeft
from gateway.http.predict.routes import PredictionRoutes
from gateway.http.predict.version_header import RAY_HEADERS
from gateway.http.request_identity import REQUEST_ID_HEADER, request_id_of
from gateway.http.server.protocol import GatewayProtocol
from gateway.metrics.counters import CALLER_LEFT

ENVIRONMENT = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{__name__}:middlewares"}
"""What the ingress' process needs in its environment for Ray to find this."""

_RAY_DEADLINE = b"x-request-timeout-seconds"
_UNWATCHED = b"x-request-disconnect-disabled"
_REQUEST_ID = REQUEST_ID_HEADER.lower().encode()
_OURS = frozenset({_RAY_DEADLINE, _UNWATCHED, _REQUEST_ID}) | RAY_HEADERS
_NO_DEADLINE = (_RAY_DEADLINE, b"0")

_ERRORS = 400
# Ray's deadline, its back-pressure, and a replica that isn't ready or on its way out.
_TRY_AGAIN = frozenset({408, 429, 503})


class Front:
    """Where this process's ingress says what asks for predictions and who answers, once it is
    there."""

    routes: PredictionRoutes | None = None
    predictions: ASGIApp | None = None


class RequestFront:
    """Answers predictions; sets the headers by which Ray Serve takes its options for the rest,
    whatever the caller sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._rest = Boundary(InOurWords(app))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or pass it on."""
        routes, predictions = Front.routes, Front.predictions
        if routes is not None and predictions is not None and routes.takes(scope):
            await predictions(scope, receive, send)
            return
        if scope["type"] == "http":
            headers = [
                each for each in scope["headers"] if each[0] not in _OURS and each[1].isascii()
            ]
            # So that one id is in the answer and in Ray's logs.
            request_id = request_id_of(scope).encode("ascii")
            scope["headers"] = [*headers, (_REQUEST_ID, request_id), _NO_DEADLINE]
        await self._rest(scope, receive, send)


class InOurWords:
    """An application in front of Ray's machinery: raises what that would answer in plain text,
    whose errors are none of the gateway's routes. To be put into a `Boundary`, which also says the
    request's id in Ray's place."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; raises a GatewayError, or CallerLeft."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused: int | None = None

        async def checked(message: MutableMapping[str, Any]) -> None:
            nonlocal refused
            if message["type"] == "http.response.start":
                message["headers"] = [
                    each for each in message["headers"] if each[0].lower() != _REQUEST_ID
                ]
                if message["status"] >= _ERRORS and is_plain(message):
                    refused = message["status"]
            if refused is None:
                await send(message)

        await self._app(scope, receive, checked)
        if refused is not None:
            raise _meant_by(refused)


def _meant_by(status: int) -> Exception:
    """The error that Ray means by a status, whatever it says beside."""
    if status == CALLER_LEFT:
        return CallerLeft()
    if status in _TRY_AGAIN:
        return GatewayUnavailable(
            "The gateway's process takes no requests right now; try again.", retry_after_s=1.0
        )
    if status == RouteNotFound.status:
        return RouteNotFound("See /docs for what there is.")
    return InternalError("The gateway's server failed on this request; see its log.")


def middlewares() -> list[Middleware]:
    """What Ray puts around its HTTP servers, whose connections are the gateway's own."""
    HTTP_PROTOCOLS["auto"] = f"{GatewayProtocol.__module__}:{GatewayProtocol.__name__}"
    return [Middleware(RequestFront)]
