"""What each HTTP request passes before Ray Serve's own machinery: our word on its Ray headers.

Ray reads per-request options from headers that any caller may send. Deadlines are the gateway's to
keep and to answer in its envelope, so Ray's is switched off for every request. Watching for callers
who leave costs Ray two tasks per request, a third of what an empty handler costs
(docs/5-performance.md).

Predictions are answered right here, before Ray's machinery (request ids, contexts, queues, metrics:
two thirds of what an empty handler costs). What Ray does for a request the gateway does for these
by itself: `gateway.http.departure` watches for callers who leave, and when the replica is stopped
its HTTP server ends what was accepted (uvicorn's graceful shutdown, which Ray waits for).

Loaded by Ray in the ingress' processes, through `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`
(ray/serve/_private/http_util.py, `configure_http_middlewares`). A test of the hot path
(tests/integration) notices when that moves.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.http.predict_endpoint import PredictEndpoint, predicted_model

ENVIRONMENT = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{__name__}:middlewares"}
"""What the ingress' process needs in its environment for Ray to find this."""

_RAY_DEADLINE = b"x-request-timeout-seconds"
_UNWATCHED = b"x-request-disconnect-disabled"
_OURS = frozenset({_RAY_DEADLINE, _UNWATCHED})
_NO_DEADLINE = (_RAY_DEADLINE, b"0")


class Front:
    """Where this process's ingress says who answers predictions, once it is there."""

    predictions: PredictEndpoint | None = None


class RequestFront:
    """Answers predictions; sets the headers by which Ray Serve takes its options for the rest,
    whatever the caller sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or pass it on."""
        endpoint = Front.predictions
        name = None if endpoint is None else predicted_model(scope)
        if endpoint is not None and name is not None:
            await endpoint.answer(name, scope, receive, send)
            return
        if scope["type"] == "http":
            headers = [header for header in scope["headers"] if header[0] not in _OURS]
            scope["headers"] = [*headers, _NO_DEADLINE]
        await self._app(scope, receive, send)


def middlewares() -> list[Middleware]:
    """What Ray puts around its HTTP servers."""
    return [Middleware(RequestFront)]
