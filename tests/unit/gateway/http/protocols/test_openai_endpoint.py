"""OpenAI's routes have what all predictions have: compression, timing, spans and counts."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import httpx
import orjson
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gateway.errors import InvalidInput, ModelFailed, Violation
from gateway.http.app import create_app
from gateway.http.predict.body import HttpLimits
from gateway.http.tracing import RequestTracing
from gateway.metrics.counters import Traffic
from gateway.ports import Call, CallResult
from gateway.prediction import PredictionService
from tests.support.catalogs import catalog, served, version
from tests.support.static_feed import StaticFeed

PATH = "/v1/chat/completions"
ASKED = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}

_MESSAGE = {
    "type": "object",
    "properties": {
        "role": {"type": "string", "required": True},
        "content": {"type": "string", "required": False},
    },
}
_MESSAGES = [{"type": "array", "items": _MESSAGE, "name": "messages", "required": True}]
CHAT = orjson.dumps(
    {"inputs": orjson.dumps(_MESSAGES).decode(), "outputs": None, "task": "agent/v1/chat"}
).decode()


class Model:
    """Answers with a text of a thousand words, or in two pieces, or as it is told to fail."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def call(self, call: Call) -> CallResult:
        if self.error is not None:
            raise self.error
        return CallResult(output=("values", [_answer("word " * 1000)]))

    async def stream(self, call: Call) -> AsyncGenerator[CallResult]:
        for word in ("one", "two"):
            chunk = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": word}}]}
            yield CallResult(output=("values", [chunk]))
        if self.error is not None:
            raise self.error


def _answer(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


class Bench:
    """The application over such a model, what it counted and the spans that ended."""

    def __init__(self) -> None:
        self.model, self.traffic = Model(), Traffic()
        self.spans = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        feed = StaticFeed(catalog(served(version(1, CHAT, task="agent/v1/chat", streamable=True))))
        service = PredictionService(
            feed=feed, submit=self.model.call, streaming=self.model, default_timeout_s=5
        )
        app = create_app(
            service=service,
            feed=feed,
            limits=HttpLimits(max_body_bytes=1000),
            traffic=self.traffic,
            tracing=RequestTracing(provider.get_tracer("test")),
        )
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://gw")

    async def ask(self, path: str = PATH, **more: Any) -> httpx.Response:
        async with self.client as client:
            return await client.post(path, json={**ASKED, **more})

    @property
    def counted(self) -> list[tuple[str, int, str]]:
        return [(model, status, protocol) for model, _, status, protocol in self.traffic._requests]


async def test_an_answer_is_compressed_and_timed() -> None:
    """As on every other route, where the caller takes that."""
    response = await Bench().ask()
    assert response.json()["choices"][0]["message"]["content"] == "word " * 1000
    assert response.headers["content-encoding"] == "gzip"
    assert response.headers["x-model-version"] == "1"
    assert "predict;dur=" in response.headers["server-timing"]


@pytest.mark.parametrize(
    ("path", "more", "status"),
    [(PATH, {}, 200), (PATH, {"stream": True}, 200), (PATH, {"messages": 1}, 422),
     (PATH, {"model": "unknown"}, 404), ("/models/m/predict", {}, 200)],
)  # fmt: skip
async def test_a_request_has_a_span_of_its_route(path: str, more: Any, status: int) -> None:
    """Named by the route, with the model and what was answered."""
    bench = Bench()
    assert (await bench.ask(path, **more)).status_code == status
    (span,) = bench.spans.get_finished_spans()
    route = "/models/{name}/predict" if path != PATH else path
    assert span.name == f"POST {route}"
    assert span.attributes is not None
    assert span.attributes["http.route"] == route
    assert span.attributes["http.response.status_code"] == status
    assert status == 404 or span.attributes["model.name"] == "m"


@pytest.mark.parametrize(
    ("path", "protocol"), [(PATH, "openai"), ("/models/m/predict", "modelmux")]
)
async def test_a_stream_is_counted_by_its_protocol(path: str, protocol: str) -> None:
    """One that ends well, and one that breaks off after its first event, which says so."""
    bench = Bench()
    assert "two" in (await bench.ask(path, stream=True)).text
    assert bench.counted == [("m", 200, protocol)]
    bench = Bench()
    bench.model.error = ModelFailed("It failed.")
    assert '"code":"model_failed"' in (await bench.ask(path, stream=True)).text
    assert bench.counted == [("m", 500, protocol)]


async def test_what_nobody_knows_is_counted_as_one() -> None:
    """A caller's word becomes no label."""
    bench = Bench()
    await bench.ask(model="whatever")
    ((model, status, protocol),) = bench.counted
    assert (status, protocol) == (404, "openai")
    assert model != "whatever"


async def test_a_model_s_own_refusal_in_a_stream_points_into_the_body() -> None:
    """As where it doesn't stream: the row's number, which the process tells, is no part of it."""

    class Refusing(Model):
        async def stream(self, call: Call) -> AsyncGenerator[CallResult]:
            raise InvalidInput((Violation(pointer="/0/messages", message="No."),))
            yield

    bench = Bench()
    bench.model.stream = Refusing().stream  # type: ignore[method-assign]
    response = await bench.ask("/models/m/predict", stream=True)
    assert response.status_code == 422
    assert [each["pointer"] for each in response.json()["errors"]] == ["/messages"]
