"""Predictions, in whatever protocol (`dialect`): plain ASGI, headers to bytes.

They must be fast, and have two doors: the ingress' own HTTP server, past the machinery of Ray and
FastAPI, which costs more than everything that the gateway does with a small request
(`deployments.ingress.serve_middleware`), and routes of the application. Must not import ray or
mlflow.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from gateway.admission import Visit
from gateway.capture.journal import CaptureJournal
from gateway.contract import TYPED
from gateway.contract.agents import asks_for_stream
from gateway.errors import GatewayError, InternalError
from gateway.http.access_control import Access
from gateway.http.access_log import note_answer
from gateway.http.predict.body import HttpLimits, read_body
from gateway.http.predict.capturing import Capturing
from gateway.http.predict.compression import WORTH_BYTES, packed
from gateway.http.predict.deadline_header import timeout_of
from gateway.http.predict.dialect import Asked, Dialect, require_json
from gateway.http.predict.disconnect import Departure, is_left
from gateway.http.predict.event_stream import EventWriter, problem_of_event, takes_events
from gateway.http.predict.version_header import VERSION_HEADER, RawHeaders
from gateway.metrics.counters import CALLER_LEFT, UNKNOWN, Traffic
from gateway.prediction import EventStream, Prediction, PredictionService

if TYPE_CHECKING:
    from gateway.http.tracing import RequestTracing  # OpenTelemetry: only where tracing is on

_PIECE_BYTES = 256 * 1024

_VERSION = VERSION_HEADER.lower().encode()


class PredictEndpoint:
    """Answers predictions as `dialect` has it; where there is none, as the typed route does.

    `access` is None where keys are off: to be said by who makes an endpoint, never forgotten. Each
    answer is counted in `traffic`, has a span where there is `tracing`, and is kept in `captured`
    where its model's tag says so. An ASGI application
    whose scope has the model's name among its `path_params`, to be put into a `Boundary`: what
    isn't a GatewayError is raised.
    """

    def __init__(
        self,
        service: PredictionService,
        *,
        limits: HttpLimits,
        access: Access | None,
        traffic: Traffic | None = None,
        tracing: RequestTracing | None = None,
        dialect: Dialect | None = None,
        captured: CaptureJournal | None = None,
    ) -> None:
        self._dialect = Dialect() if dialect is None else dialect
        self._capturing = None if captured is None else Capturing(captured, self._dialect.protocol)
        self._service = service
        self._traffic = Traffic() if traffic is None else traffic
        self._tracing = tracing
        self._limits = limits
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the prediction that is asked for."""
        if self._tracing is None:
            await self._answer(scope, receive, send)
        else:
            await self._tracing.around(self._answer, scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        protocol, name = self._dialect.protocol, scope["path_params"]["name"]
        try:
            asked = self._dialect.asked(scope)
            name = asked.name
            if self._access is not None:
                self._access.identify(scope).require_call(name)
            answer, visit = await self._prediction(asked, scope, receive)
        except GatewayError as error:
            response = self._dialect.problem(scope, error)
            self._count_failure(name, error.version, response.status_code)
            self._capture_failure(scope, error, started)
            await response(scope, receive, send)
            return
        except BaseException as error:
            status = CALLER_LEFT if is_left(error) else InternalError.status
            self._count_failure(name, None, status)
            self._capture_failure(scope, error, started)
            raise
        if isinstance(answer, EventStream):
            await self._send_events(name, answer, visit, scope, receive, send, started)
            return
        prediction = answer
        with visit:
            note_answer(scope, name, prediction.version, prediction.rows)
            headers, body = _headers(prediction), prediction.answer.body
            if len(body) >= WORTH_BYTES:
                body, more = await packed(body, scope["headers"])
                headers += more
            headers.append((b"content-length", b"%d" % len(body)))
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            spent_s = time.perf_counter() - started
            self._traffic.note_answer(
                name, prediction.version, spent_s, prediction.rows, protocol=protocol
            )
            if self._capturing is not None:
                self._capturing.answered(scope, spent_s)
            await _send_body(body, send)

    async def _send_events(
        self,
        name: str,
        stream: EventStream,
        visit: Visit,
        scope: Scope,
        receive: Receive,
        send: Send,
        started: float,
    ) -> None:
        """A stream, of which the first event is there: what goes wrong now is an event of it."""
        note_answer(scope, name, stream.version, 1)
        self._traffic.note_first_event(name, stream.version, time.perf_counter() - started)
        writer = EventWriter(send, stream.version, lambda error: problem_of_event(scope, error))
        try:
            with visit, Departure(receive, patience_s=0.0):
                await writer.write(stream.events)
            spent_s = time.perf_counter() - started
            self._traffic.note_answer(name, stream.version, spent_s, 1)
            if self._capturing is not None:
                self._capturing.answered(scope, spent_s)
        except GatewayError as error:
            self._count_failure(name, stream.version, error.status)
            self._capture_failure(scope, error, started)
        except BaseException as error:
            status = CALLER_LEFT if is_left(error) else InternalError.status
            self._count_failure(name, stream.version, status)
            self._capture_failure(scope, error, started)
            raise
        finally:
            self._traffic.note_events(name, stream.version, writer.events)

    def _count_failure(self, name: str, version: int | None, status: int) -> None:
        """A caller's word becomes no label: all names that the catalog lacks are one."""
        model = name if self._service.knows(name) else UNKNOWN
        self._traffic.note_failure(model, version, status, protocol=self._dialect.protocol)

    def _capture_failure(self, scope: Scope, error: BaseException, started: float) -> None:
        if self._capturing is not None:
            self._capturing.failed(scope, error, time.perf_counter() - started)

    async def _prediction(
        self, asked: Asked, scope: Scope, receive: Receive
    ) -> tuple[Prediction | EventStream, Visit]:
        """The prediction, and the visit to be left when it is sent."""
        headers: RawHeaders = scope["headers"]
        resolution = self._service.resolve(asked.name, asked.selector)
        # Now, because not every end names them: a caller may leave, and a bug knows no model.
        note_answer(scope, asked.name, resolution.version.number, None)
        events = self._dialect.streams and takes_events(headers)
        if events:
            require_json(headers)
        form = TYPED if events else self._dialect.form(headers, resolution)
        timeout_s = timeout_of(headers)
        kept = None
        if self._capturing is not None:
            kept = self._capturing.begin(scope, resolution, asked.selector)
        visit = self._service.arrive(resolution)
        prediction: Prediction | EventStream | None = None
        try:
            body = await read_body(headers, receive, limits=self._limits, visit=visit)
            is_agent = resolution.version.task is not None
            streams = events or (is_agent and form is TYPED and asks_for_stream(body))
            with Departure(receive):
                if streams:
                    prediction = await self._service.stream(
                        resolution, body, visit, timeout_s=timeout_s, kept=kept
                    )
                else:
                    prediction = await self._service.predict(
                        resolution, body, visit, timeout_s=timeout_s, form=form, kept=kept
                    )
            return prediction, visit
        finally:
            if prediction is None:
                visit.leave()


async def _send_body(body: bytes, send: Send) -> None:
    """A large one in pieces: each is taken only when most of what was before it is on its way, so
    that no server holds all of it for a caller who doesn't read."""
    start = 0
    while len(body) - start > _PIECE_BYTES:
        piece = body[start : start + _PIECE_BYTES]
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        start += _PIECE_BYTES
    await send({"type": "http.response.body", "body": body[start:]})


def _headers(prediction: Prediction) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", prediction.answer.media_type),
        (_VERSION, b"%d" % prediction.version),
        (b"server-timing", _server_timing(prediction.timings_ms)),
        *prediction.answer.headers,
    ]


def _server_timing(timings_ms: Mapping[str, float]) -> bytes:
    """W3C Server Timing, in milliseconds."""
    steps = (f"{name};dur={spent:.2f}" for name, spent in timings_ms.items())
    return ", ".join(steps).encode("ascii")
