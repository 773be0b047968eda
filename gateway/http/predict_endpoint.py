"""`POST /models/{name}/predict`, the one route that must be fast: plain ASGI, headers to bytes.

`PredictEndpoint` answers; `PredictShortcut` brings requests to it past FastAPI's machinery, which
costs as much as everything that the gateway does with a small request. Must not import ray or
mlflow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import GatewayError
from gateway.http.access_log import note_answer
from gateway.http.body import read_json_body
from gateway.http.departure import Departure
from gateway.http.problems import problem_of, unexpected_problem
from gateway.http.version_selection import VERSION_HEADER, selector_of
from gateway.prediction import Prediction, PredictionService

PREDICT_PATH = "/models/{name}/predict"

_PATH = re.compile("/models/([^/]+)/predict")
_VERSION = VERSION_HEADER.lower().encode()


class PredictEndpoint:
    """Answers predictions; every error of the gateway is answered as a problem document."""

    def __init__(self, service: PredictionService, *, max_body_bytes: int) -> None:
        self._service = service
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The route's ASGI application."""
        await self.answer(scope["path_params"]["name"], scope, receive, send)

    async def answer(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request in `scope` for the model `name`."""
        try:
            resolution = self._service.resolve(name, selector_of(scope["headers"]))
            body = await read_json_body(scope["headers"], receive, max_bytes=self._max_body_bytes)
            if body is None:
                return
            with Departure(receive):
                prediction = await self._service.predict(resolution, body)
        except GatewayError as error:
            await problem_of(scope, error)(scope, receive, send)
            return
        # A boundary: what nobody expected is logged, and answered in the envelope all the same.
        except Exception as error:  # noqa: BLE001 - logged by `unexpected_problem`
            await unexpected_problem(scope, error)(scope, receive, send)
            return
        note_answer(scope, name, prediction.version, prediction.rows)
        await send({"type": "http.response.start", "status": 200, "headers": _headers(prediction)})
        await send({"type": "http.response.body", "body": prediction.body})


class PredictShortcut:
    """An application in front of another: hands it all but predictions, which go straight to their
    endpoint."""

    def __init__(self, app: ASGIApp, endpoint: PredictEndpoint) -> None:
        self._app = app
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on to whom it concerns."""
        if scope["type"] == "http" and scope["method"] == "POST" and not scope.get("root_path"):
            path = _PATH.fullmatch(scope["path"])
            if path is not None:
                await self._endpoint.answer(path[1], scope, receive, send)
                return
        await self._app(scope, receive, send)


def _headers(prediction: Prediction) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(prediction.body)),
        (_VERSION, b"%d" % prediction.version),
        (b"server-timing", _server_timing(prediction.timings_ms)),
    ]


def _server_timing(timings_ms: Mapping[str, float]) -> bytes:
    """W3C Server Timing, in milliseconds."""
    steps = (f"{name};dur={spent:.2f}" for name, spent in timings_ms.items())
    return ", ".join(steps).encode("ascii")
