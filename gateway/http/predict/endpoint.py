"""`POST /models/{name}/predict`, the one route that must be fast: plain ASGI, headers to bytes.

`PredictEndpoint` answers; `PredictShortcut` brings requests to it past FastAPI's machinery, which
costs as much as everything that the gateway does with a small request. Must not import ray or
mlflow.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.admission import Visit
from gateway.errors import GatewayError, InternalError
from gateway.http.access_control import Access
from gateway.http.access_log import AccessJournal, logged, note_answer
from gateway.http.predict.body import HttpLimits, read_json_body
from gateway.http.predict.deadline_header import timeout_of
from gateway.http.predict.disconnect import Departure
from gateway.http.predict.version_header import VERSION_HEADER, RawHeaders, selector_of
from gateway.http.problems import problem_of, unexpected_problem
from gateway.http.request_identity import REQUEST_ID_HEADER, request_id_of
from gateway.metrics.counters import CALLER_LEFT, UNKNOWN, Traffic
from gateway.prediction import Prediction, PredictionService

if TYPE_CHECKING:
    from gateway.http.tracing import RequestTracing  # OpenTelemetry: only where tracing is on

PREDICT_PATH = "/models/{name}/predict"

_PIECE_BYTES = 256 * 1024

_PATH = re.compile("/models/([^/]+)/predict")
_VERSION = VERSION_HEADER.lower().encode()
_REQUEST_ID = REQUEST_ID_HEADER.lower().encode()


class PredictEndpoint:
    """Answers predictions; every error of the gateway is answered as a problem document.

    `access` is None where keys are off: to be said by who makes an endpoint, never forgotten.
    `answers_request_id` and `journal` are for where nothing in front puts `X-Request-ID` on the
    answers, or notes the requests. Each answer is counted in `traffic`, and has a span where there
    is `tracing`.
    """

    def __init__(
        self,
        service: PredictionService,
        *,
        limits: HttpLimits,
        access: Access | None,
        answers_request_id: bool = False,
        journal: AccessJournal | None = None,
        traffic: Traffic | None = None,
        tracing: RequestTracing | None = None,
    ) -> None:
        self._service = service
        self._traffic = Traffic() if traffic is None else traffic
        self._tracing = tracing
        self._limits = limits
        self._access = access
        self._answers_request_id = answers_request_id
        self._journal = journal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The route's ASGI application."""
        await self.answer(scope["path_params"]["name"], scope, receive, send)

    async def answer(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request in `scope` for the model `name`."""
        answer: ASGIApp = partial(self._answer, name)
        if self._tracing is not None:
            answer = partial(self._tracing.around, answer)
        if self._journal is None:
            await answer(scope, receive, send)
        else:
            await logged(answer, self._journal, scope, receive, send)

    async def _answer(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        try:
            if self._access is not None:
                self._access.identify(scope).require_call(name)
            made = await self._predict(name, scope, receive)
            if made is None:
                self._count_failure(name, None, CALLER_LEFT)
                return
        except GatewayError as error:
            self._count_failure(name, error.version, error.status)
            await self._identified(problem_of(scope, error), scope)(scope, receive, send)
            return
        except asyncio.CancelledError:
            self._count_failure(name, None, CALLER_LEFT)
            raise
        # A boundary: what nobody expected is logged, and answered in the envelope all the same.
        except Exception as error:  # noqa: BLE001 - logged by `unexpected_problem`
            self._count_failure(name, None, InternalError.status)
            await self._identified(unexpected_problem(scope, error), scope)(scope, receive, send)
            return
        prediction, visit = made
        with visit:
            note_answer(scope, name, prediction.version, prediction.rows)
            headers = _headers(prediction)
            if self._answers_request_id:
                headers.append((_REQUEST_ID, request_id_of(scope).encode("ascii")))
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            spent_s = time.perf_counter() - started
            self._traffic.note_answer(name, prediction.version, spent_s, prediction.rows)
            await _send_body(prediction.body, send)

    def _count_failure(self, name: str, version: int | None, status: int) -> None:
        """A caller's word becomes no label: all names that the catalog lacks are one."""
        model = name if self._service.knows(name) else UNKNOWN
        self._traffic.note_failure(model, version, status)

    async def _predict(
        self, name: str, scope: Scope, receive: Receive
    ) -> tuple[Prediction, Visit] | None:
        """The prediction, and the visit to be left when it is sent; None where the caller left
        before the body was there."""
        headers: RawHeaders = scope["headers"]
        resolution = self._service.resolve(name, selector_of(headers))
        # Now, because not every end names them: a caller may leave, and a bug knows no model.
        note_answer(scope, name, resolution.version.number, None)
        timeout_s = timeout_of(headers)
        visit = self._service.arrive(resolution)
        prediction = None
        try:
            body = await read_json_body(headers, receive, limits=self._limits, visit=visit)
            if body is None:
                return None
            with Departure(receive):
                prediction = await self._service.predict(
                    resolution, body, visit, timeout_s=timeout_s
                )
            return prediction, visit
        finally:
            if prediction is None:
                visit.leave()

    def _identified(self, problem: Response, scope: Scope) -> Response:
        if self._answers_request_id:
            problem.headers[REQUEST_ID_HEADER] = request_id_of(scope)
        return problem


async def _send_body(body: bytes, send: Send) -> None:
    """A large one in pieces: each is taken only when most of what was before it is on its way, so
    that no server holds all of it for a caller who doesn't read."""
    start = 0
    while len(body) - start > _PIECE_BYTES:
        piece = body[start : start + _PIECE_BYTES]
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        start += _PIECE_BYTES
    await send({"type": "http.response.body", "body": body[start:]})


def predicted_model(scope: Scope) -> str | None:
    """The name of the model that a request asks a prediction of; None if it asks something else."""
    if scope["type"] != "http" or scope["method"] != "POST" or scope.get("root_path"):
        return None
    path = _PATH.fullmatch(scope["path"])
    return None if path is None else path[1]


class PredictShortcut:
    """An application in front of another: hands it all but predictions, which go straight to their
    endpoint."""

    def __init__(self, app: ASGIApp, endpoint: PredictEndpoint) -> None:
        self._app = app
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on to whom it concerns."""
        name = predicted_model(scope)
        if name is None:
            await self._app(scope, receive, send)
        else:
            await self._endpoint.answer(name, scope, receive, send)


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
