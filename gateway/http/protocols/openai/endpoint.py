"""`POST /v1/chat/completions`, `/v1/responses`, `/v1/completions`, `/v1/embeddings`.

The same prediction as by `/models/{name}/predict` (keys, gate, limits, deadline, metrics), whose
model is named in the body. An error is the same problem document, with an `error` object beside,
where OpenAI's clients look. Plain ASGI, with the same two doors as predictions. Must not import ray
or mlflow.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeAlias, Unpack

import orjson
from starlette.responses import Response
from starlette.types import Scope

from gateway.admission import Visit
from gateway.catalog import Resolution
from gateway.contract import Written
from gateway.contract.agents import EMBEDDINGS, RESPONSES_AGENT
from gateway.contract.body import read_json
from gateway.errors import (
    ConflictingVersion,
    GatewayError,
    InternalError,
    InvalidInput,
    InvalidModelOutput,
    ModelUnservable,
    Violation,
)
from gateway.http.access_log import note_answer
from gateway.http.predict.answering import Answer, AnsweringEndpoint, Around, Exchange, kept
from gateway.http.predict.body import read_body
from gateway.http.predict.deadline_header import timeout_of
from gateway.http.predict.dialect import require_json
from gateway.http.predict.disconnect import Departure
from gateway.http.predict.version_header import VERSION_HEADER, RawHeaders, selector_of
from gateway.http.problems import encodable, problem_of
from gateway.http.protocols.openai.completions import Completions
from gateway.http.protocols.openai.embeddings import Embeddings
from gateway.http.protocols.openai.requests import TASKS, model_in, named, path_of, translated
from gateway.http.protocols.openai.responses import Responses
from gateway.prediction import Prediction, PredictionService

PATHS = tuple(TASKS)
PROTOCOL = "openai"
"""The value of the metrics' label."""

_EMBEDDINGS_PATH = "/v1/embeddings"

_Spoken: TypeAlias = "Completions | Responses | Embeddings"


class OpenAIEndpoint(AnsweringEndpoint):
    """Answers one of `PATHS`."""

    def __init__(self, path: str, service: PredictionService, **around: Unpack[Around]) -> None:
        super().__init__(service, route=path, **around)
        self._path = path

    @property
    def _protocol(self) -> str:
        return PROTOCOL

    def _problem(self, scope: Scope, error: GatewayError) -> Response:
        return problem_with_error(scope, error)

    def _problem_of_event(self, scope: Scope, error: GatewayError) -> dict[str, Any]:
        return {"error": error_object(error)}

    async def _answer(self, exchange: Exchange) -> tuple[Answer, Visit]:
        if self._access is not None:
            self._access.identify(exchange.scope)
        body = await self._body(exchange)
        asked_for = model_in(body)
        resolution = self._resolved(exchange, asked_for)
        spoken = _spoken(self._path, asked_for, body)
        visit = self._service.arrive(resolution)
        return await kept(visit, self._asked(exchange, resolution, body, visit, spoken))

    async def _body(self, exchange: Exchange) -> dict[str, Any]:
        """The object that was sent. Whose it is isn't known until it is there."""
        headers: RawHeaders = exchange.scope["headers"]
        with self._service.arrive_unnamed() as visit:
            require_json(headers)
            raw = await read_body(headers, exchange.receive, limits=self._limits, visit=visit)
            body = read_json(raw)
        if not isinstance(body, dict):
            raise InvalidInput((Violation(pointer="", message="Expected an object."),))
        return body

    def _resolved(self, exchange: Exchange, asked_for: str) -> Resolution:
        name, selector = named(self._service.catalog(), asked_for)
        if self._access is not None:
            self._access.identify(exchange.scope).require_call(name)
        exchange.model = name
        headers: RawHeaders = exchange.scope["headers"]
        by_header = selector_of(headers)
        if by_header is not None and selector is not None and by_header != selector:
            raise ConflictingVersion(f"The model and {VERSION_HEADER} name different versions.")
        resolution = self._service.resolve(name, selector or by_header, headers)
        version = resolution.version
        note_answer(exchange.scope, name, version.number, None)
        if version.task not in TASKS[self._path]:
            raise _spoken_elsewhere(path_of(version.task), name, version.number)
        exchange.captured = self.begin_capture(exchange.scope, resolution, selector or by_header)
        return resolution

    async def _asked(
        self,
        exchange: Exchange,
        resolution: Resolution,
        body: dict[str, Any],
        visit: Visit,
        spoken: _Spoken,
    ) -> Answer:
        timeout_s = timeout_of(exchange.scope["headers"])
        sent = orjson.dumps(encodable(translated(self._path, body)))
        with Departure(exchange.receive):
            if body.get("stream") is True and self._path != _EMBEDDINGS_PATH:
                stream = await self._service.stream(
                    resolution, sent, visit, timeout_s=timeout_s, kept=exchange.captured
                )
                return replace(stream, events=_spoken_events(stream.events, spoken))
            whole = await self._service.predict(
                resolution, sent, visit, timeout_s=timeout_s, kept=exchange.captured
            )
        try:
            return _spoken_whole(whole, spoken)
        except InvalidModelOutput as error:
            error.model, error.version = resolution.model.name, resolution.version.number
            raise


def _spoken(path: str, model: str, body: Mapping[str, Any]) -> _Spoken:
    if path == path_of(RESPONSES_AGENT):
        return Responses(model)
    if path == path_of(EMBEDDINGS):
        texts = body.get("input")
        if not isinstance(texts, list) or all(isinstance(each, int) for each in texts):
            texts = [texts]  # one, as a text or as its tokens
        return Embeddings(model, len(texts))
    return Completions(model, is_chat=path == "/v1/chat/completions")


def _spoken_whole(prediction: Prediction, spoken: _Spoken) -> Prediction:
    """The prediction with the answer as OpenAI's clients know it; raises InvalidModelOutput."""
    (answer,) = orjson.loads(prediction.answer.body)
    return replace(prediction, answer=Written(body=orjson.dumps(spoken.whole(answer))))


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
