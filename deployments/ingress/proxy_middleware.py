"""ASGI middleware in Ray Serve's own HTTP proxy: what it says where no gateway is there *yet* or
*any more*.

The proxy answers 404 in plain text then, as if there were no such model, and callers don't try
again. It is in front where there is no HAProxy, and behind HAProxy for the moments in which no
process of the gateway takes requests. Everything that the gateway answers itself passes as it is.

Loaded by Ray in its proxy, through `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`, on a Ray that is
ours; the ingress' processes have another one (`serve_middleware`).
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.ingress.plain_answers import is_plain
from gateway.errors import GatewayError, GatewayUnavailable, RouteNotFound
from gateway.http.problems import problem_of_any

_REFUSALS = frozenset({404, 500, 502, 503, 504})
_RETRY_AFTER_S = 1.0


class ProxyFront:
    """An application in front of Ray's proxy: answers in its place what that refuses by itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_refused = False

        async def checked(message: MutableMapping[str, Any]) -> None:
            nonlocal is_refused
            if message["type"] == "http.response.start":
                is_refused = message["status"] in _REFUSALS and is_plain(message)
            if not is_refused:
                await send(message)

        await self._app(scope, receive, checked)
        if is_refused:
            await problem_of_any(scope, _meant(scope))(scope, receive, send)


def _meant(scope: Scope) -> GatewayError:
    if not scope["path"].startswith("/"):
        return RouteNotFound("See /docs for what there is.")
    return GatewayUnavailable(
        "No process of the gateway takes requests yet, or any more; try again.",
        retry_after_s=_RETRY_AFTER_S,
    )


def middlewares() -> list[Middleware]:
    """What Ray puts around its proxy."""
    return [Middleware(ProxyFront)]
