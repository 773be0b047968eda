"""What all endpoints of predictions have in common: how an answer is counted, traced and sent.

Plain ASGI, headers to bytes. They must be fast, and have two doors: the ingress' own HTTP server,
past the machinery of Ray and FastAPI, which costs more than everything that the gateway does with a
small request (`deployments.ingress.serve_middleware`), and routes of the application. Must not
import ray or mlflow.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NotRequired, TypeAlias, TypedDict, Unpack

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.admission import Visit
from gateway.capture.journal import CaptureJournal
from gateway.capture.kept import Kept
from gateway.catalog import Resolution
from gateway.errors import GatewayError, InternalError
from gateway.http.access_control import Access
from gateway.http.access_log import note_answer
from gateway.http.predict.body import HttpLimits
from gateway.http.predict.capturing import Capturing
from gateway.http.predict.compression import WORTH_BYTES, packed
from gateway.http.predict.disconnect import Departure, is_left
from gateway.http.predict.event_stream import EventWriter
from gateway.http.predict.version_header import VERSION_HEADER
from gateway.http.request_identity import request_id_of
from gateway.metrics.counters import CALLER_LEFT, UNKNOWN, Traffic
from gateway.prediction import EventStream, Prediction, PredictionService

if TYPE_CHECKING:
    from gateway.http.tracing import RequestTracing  # OpenTelemetry: only where tracing is on

_PIECE_BYTES = 256 * 1024

_VERSION = VERSION_HEADER.lower().encode()

Answer: TypeAlias = Prediction | EventStream


@dataclass(slots=True)
class Exchange:
    """One request, when it came, the model that it asks for once that is known, and what is
    captured of it, if it is."""

    scope: Scope
    receive: Receive
    send: Send
    model: str | None = None
    captured: Kept | None = None
    began: float = field(default_factory=time.perf_counter)

    @property
    def spent_s(self) -> float:
        """The time since it came."""
        return time.perf_counter() - self.began


class Around(TypedDict):
    """What is around the endpoints of one process, the same for each of them.

    `access` is None where keys are off: to be said by who makes an endpoint, never forgotten. Each
    answer is counted in `traffic`, has a span where there is `tracing`, and is kept in `captured`
    where its model's tag says so.
    """

    limits: HttpLimits
    access: Access | None
    traffic: NotRequired[Traffic | None]
    tracing: NotRequired[RequestTracing | None]
    captured: NotRequired[CaptureJournal | None]


class AnsweringEndpoint(ABC):
    """Answers predictions at `route`, in one protocol. An ASGI application, to be put into a
    `Boundary`: what isn't a GatewayError is raised."""

    def __init__(self, service: PredictionService, *, route: str, **around: Unpack[Around]) -> None:
        traffic, captured = around.get("traffic"), around.get("captured")
        self._service = service
        self._limits = around["limits"]
        self._access = around["access"]
        self._traffic = Traffic() if traffic is None else traffic
        self._tracing = around.get("tracing")
        self._route = route
        self._capturing = None if captured is None else Capturing(captured, self._protocol)

    @property
    @abstractmethod
    def _protocol(self) -> str:
        """The value of the metrics' label."""

    @abstractmethod
    async def _answer(self, exchange: Exchange) -> tuple[Answer, Visit]:
        """The answer, and the visit to be left when it is sent; notes the exchange's model."""

    @abstractmethod
    def _problem(self, scope: Scope, error: GatewayError) -> Response:
        """The response of an error."""

    @abstractmethod
    def _problem_of_event(self, scope: Scope, error: GatewayError) -> dict[str, Any]:
        """The event of an error that a stream breaks off with."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the prediction that is asked for."""
        if self._tracing is None:
            await self._respond(scope, receive, send)
        else:
            await self._tracing.around(self._respond, scope, receive, send, route=self._route)

    @property
    def max_body_bytes(self) -> int:
        """The longest body that is taken."""
        return self._limits.max_body_bytes

    def begin_capture(
        self, scope: Scope, resolution: Resolution, selector: str | None
    ) -> Kept | None:
        """What is to be noted of a request, where it is captured: to be called once it is known
        what answers, by whichever `selector` was asked for."""
        if self._capturing is None:
            return None
        return self._capturing.begin(scope, resolution, selector)

    def note_answered(
        self, scope: Scope, model: str, version: int, spent_s: float, rows: int
    ) -> None:
        """Count an answer that was sent, also by who began it (`direct`)."""
        self._traffic.note_answer(model, version, spent_s, rows, protocol=self._protocol)
        if self._capturing is not None:
            self._capturing.answered(scope, spent_s)

    def note_left(self, scope: Scope, model: str, spent_s: float) -> None:
        """The same of a caller who left."""
        known = model if self._service.knows(model) else UNKNOWN
        self._traffic.note_failure(known, None, CALLER_LEFT, protocol=self._protocol)
        if self._capturing is not None:
            self._capturing.left(scope, spent_s)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        await self.conclude(exchange, self._answer(exchange))

    async def conclude(self, exchange: Exchange, coming: Awaitable[tuple[Answer, Visit]]) -> None:
        """Send what comes, or the problem that it raises, and count it."""
        scope, receive, send = exchange.scope, exchange.receive, exchange.send
        try:
            answer, visit = await coming
        except GatewayError as error:
            response = self._problem(scope, error)
            self._count_failure(exchange, error, error.version, response.status_code)
            await response(scope, receive, send)
            return
        except BaseException as error:
            status = CALLER_LEFT if is_left(error) else InternalError.status
            self._count_failure(exchange, error, None, status)
            raise
        if isinstance(answer, EventStream):
            await self._send_events(exchange, answer, visit)
        else:
            await self._send_whole(exchange, answer, visit)

    async def _send_whole(self, exchange: Exchange, prediction: Prediction, visit: Visit) -> None:
        name, version, rows = str(exchange.model), prediction.version, prediction.rows
        with visit:
            note_answer(exchange.scope, name, version, rows)
            headers, body = _headers(prediction), prediction.answer.body
            if len(body) >= WORTH_BYTES:
                body, more = await packed(body, exchange.scope["headers"])
                headers += more
            headers.append((b"content-length", b"%d" % len(body)))
            start = {"type": "http.response.start", "status": 200, "headers": headers}
            await exchange.send(start)
            self._count_answer(exchange, version, rows)
            await _send_body(body, exchange.send)
        if prediction.offer is not None:
            prediction.offer(request_id_of(exchange.scope))

    async def _send_events(self, exchange: Exchange, stream: EventStream, visit: Visit) -> None:
        """A stream, of which the first event is there: what goes wrong now is an event of it."""
        name, scope, version = str(exchange.model), exchange.scope, stream.version
        note_answer(scope, name, version, 1)
        self._traffic.note_first_event(name, version, exchange.spent_s)
        writer = EventWriter(
            exchange.send, version, lambda error: self._problem_of_event(scope, error)
        )
        try:
            with visit, Departure(exchange.receive, patience_s=0.0):
                await writer.write(stream.events)
            self._count_answer(exchange, version, 1)
            if stream.offer is not None:
                stream.offer(request_id_of(scope))
        except GatewayError as error:
            self._count_failure(exchange, error, version, error.status)
        except BaseException as error:
            status = CALLER_LEFT if is_left(error) else InternalError.status
            self._count_failure(exchange, error, version, status)
            raise
        finally:
            self._traffic.note_events(name, version, writer.events)

    def _count_answer(self, exchange: Exchange, version: int, rows: int) -> None:
        self.note_answered(exchange.scope, str(exchange.model), version, exchange.spent_s, rows)

    def _count_failure(
        self, exchange: Exchange, error: BaseException, version: int | None, status: int
    ) -> None:
        """A caller's word becomes no label: all names that the catalog lacks are one."""
        name = exchange.model
        model = name if name is not None and self._service.knows(name) else UNKNOWN
        self._traffic.note_failure(model, version, status, protocol=self._protocol)
        if self._capturing is not None:
            self._capturing.failed(exchange.scope, error, exchange.spent_s)


async def kept(visit: Visit, coming: Awaitable[Answer]) -> tuple[Answer, Visit]:
    """What comes, with the visit, which is left where nothing does."""
    try:
        return await coming, visit
    except BaseException:
        visit.leave()
        raise


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
        (b"server-timing", server_timing(prediction.timings_ms)),
        *prediction.answer.headers,
    ]


def server_timing(timings_ms: Mapping[str, float]) -> bytes:
    """W3C Server Timing, in milliseconds."""
    steps = [f"{name};dur={spent:.2f}" for name, spent in timings_ms.items()]
    return ", ".join(steps).encode("ascii")
