"""Spans of requests and their calls, through the endpoint and the batcher, over a gated model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import httpx
import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from gateway.batching.batcher import MicroBatcher
from gateway.errors import ModelFailed
from gateway.http.app import create_app
from gateway.http.predict.body import HttpLimits
from gateway.http.tracing import CallTracing, RequestTracing, TraceOrigins
from gateway.ports import Call, CallResult
from gateway.prediction import PredictionService
from tests.support.catalogs import catalog, served, version
from tests.support.static_feed import StaticFeed

TRACE, CALLER = "12345678" * 4, "12345678" * 2
MODEL = served(version(1, flavor="mlflow.sklearn"))


class GatedBackend:
    """A model whose calls wait until they are let go, and fail as told."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.calls: list[Call] = []
        self.error: Exception | None = None

    async def call(self, call: Call) -> CallResult:
        self.calls.append(call)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return CallResult(output=("columns", ["y"], [np.asarray(call.frame.columns[0])]))


class Bench:
    """The app with tracing, and the spans that ended."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        tracer = provider.get_tracer("test")
        self.backend = GatedBackend()
        self.batcher = MicroBatcher(CallTracing(self.backend, tracer))
        service = PredictionService(
            feed=StaticFeed(catalog(MODEL)),
            submit=TraceOrigins(self.batcher.submit).submit,
            default_timeout_s=5,
        )
        app = create_app(
            service=service,
            feed=StaticFeed(catalog(MODEL)),
            limits=HttpLimits(max_body_bytes=1000),
            tracing=RequestTracing(tracer),
        )
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://gw"
        )

    async def ask(self, x: float = 1, **headers: str) -> httpx.Response:
        return await self.client.post("/models/m/predict", json={"x": x}, headers=headers)

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    @property
    def waiting(self) -> int:
        """How many requests wait for a call to return."""
        return sum(waiting for _, waiting in self.batcher.queues())

    @property
    def requests(self) -> list[ReadableSpan]:
        return self.spans("POST /models/{name}/predict")

    @property
    def calls(self) -> list[ReadableSpan]:
        return self.spans("call model")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    async with made.client:
        yield made


def span_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def linked(span: ReadableSpan) -> set[int]:
    return {link.context.span_id for link in span.links}


async def test_the_caller_s_trace_goes_on_into_the_call(bench: Bench) -> None:
    """Parents from the header to the call, and the call's own id to the model's process."""
    await bench.ask(traceparent=f"00-{TRACE}-{CALLER}-01")
    (request,), (call,), (sent,) = bench.requests, bench.calls, bench.backend.calls
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == CALLER
    assert call.parent is not None
    assert call.parent.span_id == span_id(request)
    assert sent.traceparent == f"00-{TRACE}-{span_id(call):016x}-01"
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 200


@pytest.mark.parametrize("header", ["", "nonsense", f"00-{'0' * 32}-{CALLER}-01"])
async def test_without_a_good_header_a_trace_begins(bench: Bench, header: str) -> None:
    """What isn't a traceparent is no error: the request is a root."""
    assert (await bench.ask(traceparent=header)).status_code == 200
    assert [span.parent for span in bench.requests] == [None]


async def test_of_two_traceparents_neither_is_taken(bench: Bench) -> None:
    """Whose trace goes on would be a guess: a trace begins, with nothing of either."""
    sent = f"00-{TRACE}-{CALLER}-01"
    for other in (sent, sent.replace("1", "a"), "nonsense"):
        headers = [("traceparent", sent), ("traceparent", other), ("tracestate", "vendor=1")]
        await bench.client.post("/models/m/predict", json={"x": 1}, headers=headers)
    assert [span.parent for span in bench.requests] == [None] * 3
    for span in bench.requests:
        assert span.context is not None
        assert f"{span.context.trace_id:032x}" != TRACE
        assert not span.context.trace_state


async def test_a_tracestate_may_come_in_parts(bench: Bench) -> None:
    """Several headers of it are one list."""
    parts = [("tracestate", "a=1"), ("tracestate", "b=2")]
    headers = [("traceparent", f"00-{TRACE}-{CALLER}-01"), *parts]
    await bench.client.post("/models/m/predict", json={"x": 1}, headers=headers)
    (request,) = bench.requests
    assert request.context is not None
    assert request.context.trace_state.to_header() == "a=1,b=2"


async def test_a_call_belongs_to_its_first_request_and_is_linked_with_the_others(
    bench: Bench,
) -> None:
    """Who waited together has one call: a child of one of them, linked both ways with the rest."""
    await bench.ask()  # warm
    bench.backend.gate.clear()
    asking = [asyncio.create_task(bench.ask(x)) for x in range(6)]
    while len(bench.backend.calls) - 1 + bench.waiting < len(asking):
        await asyncio.wait(asking, timeout=0.01)
    together = bench.waiting
    bench.backend.gate.set()
    await asyncio.gather(*asking)
    (shared,) = [call for call in bench.calls if call.links]
    assert len(shared.links) == together - 1
    others = [request for request in bench.requests if span_id(request) in linked(shared)]
    assert [linked(request) for request in others] == [{span_id(shared)}] * (together - 1)
    assert shared.parent is not None
    assert shared.parent.span_id in {span_id(r) for r in bench.requests} - linked(shared)
    assert sum(len(request.links) for request in bench.requests) == together - 1


@pytest.mark.parametrize("error", [ModelFailed("secret words"), KeyError("secret words")])
async def test_errors_are_marked_without_their_words(bench: Bench, error: Exception) -> None:
    """A 5xx is an error of the request's span and of the call's, whether it was foreseen or not; a
    4xx of neither."""
    assert (await bench.client.post("/models/m/predict", json={"x": "no"})).status_code == 422
    bench.backend.error = error
    assert (await bench.ask()).status_code == 500
    good, bad = bench.requests
    assert (good.status.status_code, bad.status.status_code) == (
        StatusCode.UNSET,
        StatusCode.ERROR,
    )
    assert (bad.attributes or {})["http.response.status_code"] == 500
    (call,) = bench.calls
    assert call.status.status_code == StatusCode.ERROR
    assert "secret" not in _all_that_is_told(bench.exporter.get_finished_spans())


async def test_a_caller_who_leaves_ends_the_spans(bench: Bench) -> None:
    """Both are sent, the request's with no status."""
    bench.backend.gate.clear()
    asking = asyncio.create_task(bench.ask())
    while not bench.backend.calls:
        await asyncio.wait([asking], timeout=0.01)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    ((request,), (call,)) = bench.requests, bench.calls
    assert "http.response.status_code" not in (request.attributes or {})
    assert (call.attributes or {})["error.type"] == "CancelledError"


def _all_that_is_told(spans: Sequence[ReadableSpan]) -> str:
    return "".join(span.to_json() for span in spans)
