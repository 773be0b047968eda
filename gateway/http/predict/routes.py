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
        if scope["type"] != "http" or scope["method"] != "POST":
            return False
        found = self.found(scope["path"].removeprefix(scope.get("root_path", "")))
        if found is None:
            return False
        scope[_TAKEN], scope["path_params"] = found
        return True

    def found(self, path: str) -> tuple[ASGIApp, dict[str, str]] | None:
        """Who answers at a path, and what that says by its names; None where nobody does."""
        for pattern, endpoint in self._patterns:
            matched = pattern.fullmatch(path)
            if matched is not None:
                return endpoint, matched.groupdict()
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that was taken."""
        endpoint: ASGIApp = scope[_TAKEN]
        await endpoint(scope, receive, send)


class PredictionsFirst:
    """An application around another: predictions don't come to that. Their endpoints ask for keys
    by themselves, and count whom they refuse. A slash at the end has been taken away already."""

    def __init__(self, app: ASGIApp, predictions: PredictionRoutes) -> None:
        self._app = app
        self._predictions = predictions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have one of both answer."""
        is_taken = not scope.get("path", "").endswith("/") and self._predictions.takes(scope)
        app = self._predictions if is_taken else self._app
        await app(scope, receive, send)


def path_pattern(path: str) -> re.Pattern[str]:
    """What matches a route's paths, and gives what they hold by its names. A slash at the end is
    the same."""
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path) + "/?")
