"""The paths of predictions, each with its endpoint, found without a framework's router."""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

_TAKEN = "modelmux.endpoint"


class PredictionRoutes:
    """An ASGI application of the requests that it takes."""

    def __init__(self, endpoints: Sequence[tuple[str, ASGIApp]]) -> None:
        self._endpoints = endpoints
        self._patterns = [(path_pattern(path), endpoint) for path, endpoint in endpoints]

    @property
    def routes(self) -> list[Route]:
        """The same for a framework's router."""
        return [Route(path, endpoint, methods=["POST"]) for path, endpoint in self._endpoints]

    def takes(self, scope: Scope) -> bool:
        """Whether a request asks for a prediction; what its path says is then in its scope."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope.get("root_path"):
            return False
        for pattern, endpoint in self._patterns:
            path = pattern.fullmatch(scope["path"])
            if path is not None:
                scope["path_params"] = path.groupdict()
                scope[_TAKEN] = endpoint
                return True
        return False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that was taken."""
        endpoint: ASGIApp = scope[_TAKEN]
        await endpoint(scope, receive, send)


def path_pattern(path: str) -> re.Pattern[str]:
    """What matches a route's paths, and gives what they hold by its names. A slash at the end is
    the same."""
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path) + "/?")
