"""`POST /v1/chat/completions`, `/v1/responses`, `/v1/completions`, `/v1/embeddings`.

The same prediction as by `/models/{name}/predict` (keys, gate, limits, deadline, metrics), whose
model is named in the body. An error is the same problem document, with an `error` object beside,
where OpenAI's clients look. Plain ASGI, with the same two doors as predictions. Must not import ray
or mlflow.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any, TypeAlias

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.admission import Visit
from gateway.capture.journal import CaptureJournal
from gateway.capture.kept import Kept
from gateway.catalog import Resolution
from gateway.contract.agents import EMBEDDINGS, RESPONSES_AGENT
from gateway.contract.body import read_json
from gateway.errors import (
    ConflictingVersion,
    GatewayError,
    InternalError,
    InvalidInput,
    ModelUnservable,
    Violation,
)
from gateway.http.access_control import Access
from gateway.http.access_log import note_answer
from gateway.http.predict.body import HttpLimits, read_body
from gateway.http.predict.capturing import Capturing
from gateway.http.predict.deadline_header import timeout_of
from gateway.http.predict.dialect import require_json
from gateway.http.predict.disconnect import Departure, is_left
from gateway.http.predict.event_stream import EventWriter
from gateway.http.predict.version_header import VERSION_HEADER, RawHeaders, selector_of
from gateway.http.problems import encodable, problem_of
from gateway.http.protocols.openai.completions import Completions
from gateway.http.protocols.openai.requests import TASKS, model_in, named, path_of, translated
from gateway.http.protocols.openai.responses import Responses
from gateway.metrics.counters import CALLER_LEFT, UNKNOWN, Traffic
from gateway.prediction import EventStream, Prediction, PredictionService

PATHS = frozenset(TASKS)
PROTOCOL = "openai"
"""The value of the metrics' label."""

_Spoken: TypeAlias = "Completions | Responses | _Embeddings"


class OpenAIEndpoint:
    """Answers one of `PATHS`. `access` is None where keys are off; an ASGI application, to be put
    into a `Boundary`."""

    def __init__(
        self,
        service: PredictionService,
        *,
        limits: HttpLimits,
        access: Access | None,
        traffic: Traffic | None = None,
        captured: CaptureJournal | None = None,
    ) -> None:
        self._service = service
        self._capturing = None if captured is None else Capturing(captured, PROTOCOL)
        self._limits = limits
        self._access = access
        self._traffic = Traffic() if traffic is None else traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        exchange = _Exchange(scope, receive, send, time.perf_counter())
        try:
            await self._answer(exchange)
            if self._capturing is not None:
                self._capturing.answered(scope, exchange.spent_s)
        except GatewayError as error:
            self._count_failure(exchange, error.status)
            self._capture_failure(exchange, error)
            if not exchange.has_begun:
                await problem_with_error(scope, error)(scope, receive, send)
        except BaseException as error:
            self._count_failure(exchange, CALLER_LEFT if is_left(error) else InternalError.status)
            self._capture_failure(exchange, error)
            raise

    async def _answer(self, exchange: _Exchange) -> None:
        path = _path_in(exchange.scope)
        if self._access is not None:
            self._access.identify(exchange.scope)
        body = await self._body(exchange)
        asked_for = model_in(body)
        resolution = self._resolved(exchange, path, asked_for)
        spoken = _spoken(path, asked_for)
        is_stream = body.get("stream") is True and path != "/v1/embeddings"
        with self._service.arrive(resolution) as visit:
            answer = await self._asked(exchange, resolution, path, body, visit, is_stream)
            if isinstance(answer, EventStream):
                await self._send_events(exchange, answer, spoken)
            else:
                await self._send_whole(exchange, answer, spoken)

    async def _body(self, exchange: _Exchange) -> dict[str, Any]:
        """The object that was sent. Whose it is isn't known until it is there."""
        headers: RawHeaders = exchange.scope["headers"]
        with self._service.arrive_unnamed() as visit:
            require_json(headers)
            raw = await read_body(headers, exchange.receive, limits=self._limits, visit=visit)
            body = read_json(raw)
        if not isinstance(body, dict):
            raise InvalidInput((Violation(pointer="", message="Expected an object."),))
        return body

    def _resolved(self, exchange: _Exchange, path: str, asked_for: str) -> Resolution:
        name, selector = named(self._service.catalog(), asked_for)
        if self._access is not None:
            self._access.identify(exchange.scope).require_call(name)
        exchange.model = name if self._service.knows(name) else UNKNOWN
        by_header = selector_of(exchange.scope["headers"])
        if by_header is not None and selector is not None and by_header != selector:
            raise ConflictingVersion(f"The model and {VERSION_HEADER} name different versions.")
        resolution = self._service.resolve(name, selector or by_header)
        version = resolution.version
        exchange.version = version.number
        note_answer(exchange.scope, name, version.number, None)
        if version.task not in TASKS[path]:
            raise _spoken_elsewhere(path_of(version.task), name, version.number)
        if self._capturing is not None:
            asked = selector or by_header
            exchange.kept = self._capturing.begin(exchange.scope, resolution, asked)
        return resolution

    async def _asked(
        self,
        exchange: _Exchange,
        resolution: Resolution,
        path: str,
        body: dict[str, Any],
        visit: Visit,
        is_stream: bool,
    ) -> Prediction | EventStream:
        timeout_s = timeout_of(exchange.scope["headers"])
        sent = orjson.dumps(encodable(translated(path, body)))
        answer = self._service.stream if is_stream else self._service.predict
        with Departure(exchange.receive):
            return await answer(resolution, sent, visit, timeout_s=timeout_s, kept=exchange.kept)

    async def _send_whole(self, exchange: _Exchange, answer: Prediction, spoken: _Spoken) -> None:
        whole = orjson.dumps(spoken.whole(orjson.loads(answer.answer.body)[0]))
        note_answer(exchange.scope, exchange.model, answer.version, 1)
        exchange.has_begun = True
        response = Response(
            whole, 200, {VERSION_HEADER: str(answer.version)}, media_type="application/json"
        )
        self._traffic.note_answer(
            exchange.model, answer.version, exchange.spent_s, 1, protocol=PROTOCOL
        )
        await response(exchange.scope, exchange.receive, exchange.send)

    async def _send_events(self, exchange: _Exchange, stream: EventStream, spoken: _Spoken) -> None:
        note_answer(exchange.scope, exchange.model, stream.version, 1)
        self._traffic.note_first_event(exchange.model, stream.version, exchange.spent_s)
        writer = EventWriter(
            exchange.send, stream.version, lambda error: {"error": error_object(error)}
        )
        exchange.has_begun = True
        try:
            with Departure(exchange.receive, patience_s=0.0):
                await writer.write(_spoken_events(stream.events, spoken))
        finally:
            self._traffic.note_events(exchange.model, stream.version, writer.events)
        self._traffic.note_answer(
            exchange.model, stream.version, exchange.spent_s, 1, protocol=PROTOCOL
        )

    def _capture_failure(self, exchange: _Exchange, error: BaseException) -> None:
        if self._capturing is not None:
            self._capturing.failed(exchange.scope, error, exchange.spent_s)

    def _count_failure(self, exchange: _Exchange, status: int) -> None:
        self._traffic.note_failure(exchange.model, exchange.version, status, protocol=PROTOCOL)


class _Exchange:
    """One request, and what is known of it so far."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, began: float) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.model = UNKNOWN
        self.version: int | None = None
        self.kept: Kept | None = None
        self.has_begun = False
        self._began = began

    @property
    def spent_s(self) -> float:
        return time.perf_counter() - self._began


class _Embeddings:
    """An `llm/v1/embeddings` answer is an embedding list already, but for its model."""

    def __init__(self, model: str) -> None:
        self._model = model

    def whole(self, answer: Any) -> dict[str, Any]:
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, list):
            vectors = answer if isinstance(answer, list) else []
            vectors = vectors if vectors and isinstance(vectors[0], list) else [vectors]
            data = [
                {"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)
            ]
        beside = answer if isinstance(answer, dict) else {}
        usage = {"usage": {"prompt_tokens": 0, "total_tokens": 0}}
        return {**usage, **beside, "object": "list", "data": data, "model": self._model}


def _spoken(path: str, model: str) -> _Spoken:
    if path == path_of(RESPONSES_AGENT):
        return Responses(model)
    if path == path_of(EMBEDDINGS):
        return _Embeddings(model)
    return Completions(model, is_chat=path == "/v1/chat/completions")


async def _spoken_events(events: AsyncGenerator[bytes], spoken: Any) -> AsyncGenerator[bytes]:
    """The events as OpenAI's clients know them, each as soon as the model's is there."""
    said: Callable[[Any], Iterator[Any]]
    said = spoken.events if isinstance(spoken, Responses) else spoken.chunks
    async with aclosing(events):
        async for event in events:
            for each in said(orjson.loads(event)):
                yield orjson.dumps(each)
    for each in spoken.last():
        yield orjson.dumps(each)


def error_object(error: GatewayError) -> dict[str, Any]:
    """What OpenAI's API says of an error."""
    violations = error.violations if isinstance(error, InvalidInput) else ()
    message = "; ".join(f"{v.pointer or 'body'}: {v.message}" for v in violations[:3])
    return {
        "message": f"{error.detail} {message}".strip(),
        "type": "invalid_request_error" if error.status < InternalError.status else "server_error",
        "param": violations[0].pointer.lstrip("/").replace("/", ".") if violations else None,
        "code": error.code,
    }


def problem_with_error(scope: Scope, error: GatewayError) -> Response:
    """The problem document of an error, with the object that OpenAI's clients read."""
    plain = problem_of(scope, error)
    document = {**orjson.loads(bytes(plain.body)), "error": error_object(error)}
    headers = {k: v for k, v in plain.headers.items() if k != "content-length"}
    return Response(orjson.dumps(encodable(document)), plain.status_code, headers)


def _spoken_elsewhere(path: str | None, name: str, version: int) -> ModelUnservable:
    where = f"/models/{name}/predict" if path is None else path
    return ModelUnservable(
        f"The model doesn't speak what this path does; ask it at {where}.",
        model=name,
        version=version,
    )


def _path_in(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
