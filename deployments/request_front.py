"""What each HTTP request passes before Ray Serve's own machinery: our word on its Ray headers.

Ray reads per-request options from headers that any caller may send. Deadlines are the gateway's to
keep and to answer in its envelope, so Ray's is switched off for every request. Watching for callers
who leave costs Ray two tasks per request, a third of what an empty handler costs
(docs/5-performance.md); for predictions the gateway does it itself, where an answer takes long
(`gateway.http.departure`).

Loaded by Ray in the ingress' processes, through `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`
(ray/serve/_private/http_util.py, `configure_http_middlewares`). A test of the hot path
(tests/integration) notices when that moves.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

ENVIRONMENT = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{__name__}:middlewares"}
"""What the ingress' process needs in its environment for Ray to find this."""

_RAY_DEADLINE = b"x-request-timeout-seconds"
_UNWATCHED = b"x-request-disconnect-disabled"
_OURS = frozenset({_RAY_DEADLINE, _UNWATCHED})
_NO_DEADLINE = (_RAY_DEADLINE, b"0")
_DO_NOT_WATCH = (_UNWATCHED, b"?1")


class RayRequestOptions:
    """Sets the headers by which Ray Serve takes its options, whatever the caller sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] == "http":
            headers = [header for header in scope["headers"] if header[0] not in _OURS]
            headers.append(_NO_DEADLINE)
            if scope["path"].endswith("/predict"):
                headers.append(_DO_NOT_WATCH)
            scope["headers"] = headers
        await self._app(scope, receive, send)


def middlewares() -> list[Middleware]:
    """What Ray puts around its HTTP servers."""
    return [Middleware(RayRequestOptions)]
