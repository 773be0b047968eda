"""Traces, sent to a small OTLP receiver in this process, and ingress replicas that come with the
requests."""

from __future__ import annotations

import asyncio
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pandas as pd
import pytest

from tests.support.processes import Gateway, poll
from tests.support.registering import client, columns, register
from tests.support.span_receiver import ReceivedSpan, SpanReceiver

NUMBER = columns(("x", "double"))
NAME = "own traced"


def _traced(rows: pd.DataFrame, params: Any) -> list[str]:
    """Tells the trace that its own code is in, as any instrumented library would find it."""
    from opentelemetry.trace import get_current_span

    time.sleep(0.05)  # the model's own slowness: the others gather meanwhile
    if (rows["x"] < 0).any():
        raise ValueError("negative")
    span = get_current_span().get_span_context()
    return [f"{span.trace_id:032x}-{span.span_id:016x}"] * len(rows)


@pytest.fixture
def receiver(span_receiver: SpanReceiver) -> SpanReceiver:
    return span_receiver


@pytest.fixture(scope="module")
def traced(mlflow_uri: str, impatient_gateway: Gateway) -> Gateway:
    """The gateway with one model, with batching."""
    register(mlflow_uri, NAME, _traced, NUMBER, columns(("where", "string")))
    client(mlflow_uri).set_registered_model_tag(NAME, "modelmux.batching", "on")
    impatient_gateway.sync()
    return impatient_gateway


def new_trace() -> tuple[str, str, str]:
    """A trace's id, the id of the caller's span, and the header that names both."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, f"00-{trace}-{span}-01"


def spans_of(receiver: SpanReceiver, trace: str, *names: str) -> dict[str, ReceivedSpan]:
    """The spans of a trace by their names, once all of these are there."""
    wanted = {"POST /models/{name}/predict", "call model", *names}
    poll(
        lambda: wanted <= {span.name for span in receiver.of_trace(trace)},
        what=f"the spans of a trace ({[span.name for span in receiver.all()]})",
    )
    return {span.name: span for span in receiver.of_trace(trace)}


def test_one_trace_goes_from_the_caller_to_the_model_s_own_code(
    traced: Gateway, receiver: SpanReceiver
) -> None:
    """By its replica first, straight to its process later: each span has the right parent."""
    for way, names in (("replica", ("run model", "load version")), ("process", ("run model",))):
        trace, caller, header = new_trace()
        answer = traced.predict(NAME, {"x": 1}, traceparent=header, X_Model_Version="1")
        assert answer.status_code == 200, answer.text
        spans = spans_of(receiver, trace, *names)
        request, call = spans["POST /models/{name}/predict"], spans["call model"]
        running = spans["run model"]
        assert request.parent == caller
        assert call.parent == request.id
        assert running.parent == call.id
        assert {span.part for span in spans.values()} == {"ingress"}
        assert {span.service for span in spans.values()} == {"modelmux"}
        assert request.begin_ns <= call.begin_ns <= call.end_ns <= request.end_ns
        assert call.begin_ns <= running.begin_ns <= running.end_ns <= call.end_ns
        assert running.end_ns - running.begin_ns >= 50_000_000
        assert answer.json() == [{"where": f"{trace}-{call.id}"}]
        assert request.attributes == {
            "http.request.method": "POST",
            "http.route": "/models/{name}/predict",
            "http.response.status_code": 200,
            "model.name": NAME,
            "model.version": 1,
            "model.rows": 1,
        }
        assert call.attributes["call.way"] == way
        if "load version" in names:
            assert spans["load version"].parent == call.id
        poll(lambda: _goes_straight(traced, receiver), what="a call straight to the process")


def _goes_straight(traced: Gateway, receiver: SpanReceiver) -> bool:
    """It does a moment after the first call."""
    trace, _, header = new_trace()
    traced.predict(NAME, {"x": 1}, traceparent=header)
    return spans_of(receiver, trace)["call model"].attributes["call.way"] == "process"


def test_requests_that_share_a_call_are_linked_with_it(
    traced: Gateway, receiver: SpanReceiver
) -> None:
    """The call is in the first one's trace; each of the others has a link to it, and it to them."""
    made = [new_trace() for _ in range(12)]
    with ThreadPoolExecutor(len(made)) as crowd:
        answers = list(
            crowd.map(lambda each: traced.predict(NAME, {"x": 1}, traceparent=each[2]), made)
        )
    assert {answer.status_code for answer in answers} == {200}
    traces = {trace for trace, _, _ in made}

    def requests() -> list[ReceivedSpan]:
        return [s for s in receiver.all() if s.trace in traces and s.name.startswith("POST")]

    poll(lambda: len(requests()) == len(made), what="a span of each request")
    calls = [s for s in receiver.all() if s.trace in traces and s.name == "call model"]
    assert len(calls) < len(made)
    for request in requests():
        own = [call for call in calls if request.id == call.parent]
        others = [call for call in calls if request.id in call.links]
        assert len(own) + len(others) == 1
        assert request.links == {call.id for call in others}
    # What the model's code saw is the trace of a request that was in its call.
    assert {answer.json()[0]["where"].split("-")[0] for answer in answers} <= traces


def test_what_goes_wrong_is_marked_and_nothing_of_it_told(
    traced: Gateway, receiver: SpanReceiver
) -> None:
    """An error of the model marks every span on the way; the message of an exception isn't sent."""
    trace, _, header = new_trace()
    assert traced.predict(NAME, {"x": -1}, traceparent=header).status_code == 500
    spans = spans_of(receiver, trace)
    assert all(span.is_error for span in spans.values())
    assert spans["POST /models/{name}/predict"].attributes["error.type"] == "500"
    assert spans["call model"].attributes["error.type"] == "ModelFailed"
    assert "negative" not in repr(receiver.all())


def test_a_caller_s_no_is_a_no_for_all_processes(traced: Gateway, receiver: SpanReceiver) -> None:
    """A traceparent that isn't sampled has no spans anywhere; what was asked without one has."""
    trace, _, header = new_trace()
    answer = traced.predict(NAME, {"x": 1}, traceparent=header.removesuffix("01") + "00")
    assert answer.json()[0]["where"].startswith(trace)
    where = traced.predict(NAME, {"x": 1}).json()[0]["where"]
    spans_of(receiver, where.split("-")[0])
    assert receiver.of_trace(trace) == []


async def test_replicas_come_with_the_requests_and_each_is_counted(traced: Gateway) -> None:
    """Ray doesn't see predictions; told of them, it makes a second replica, whose numbers
    `/metrics` has as well, and no caller sees any of that."""
    poll(lambda: _replicas(traced) == 1, timeout_s=240, what="one replica, as others leave it")
    statuses: set[int] = set()
    async with (
        httpx.AsyncClient(base_url=traced.url, timeout=60.0) as caller,
        asyncio.TaskGroup() as group,
    ):
        asking = [group.create_task(_ask_on(caller, statuses)) for _ in range(16)]
        await asyncio.to_thread(
            poll, lambda: _replicas(traced) == 2, timeout_s=150, what="a second replica"
        )
        for each in asking:
            each.cancel()
    assert statuses == {200}


async def _ask_on(caller: httpx.AsyncClient, statuses: set[int]) -> None:
    while True:
        answer = await caller.post(f"/models/{NAME}/predict", json={"x": 1})
        statuses.add(answer.status_code)


def _replicas(running: Gateway) -> int:
    told = running.client.get("/metrics").text
    (line,) = [line for line in told.splitlines() if line.startswith("modelmux_ingress_replicas ")]
    return round(float(line.split()[1]))
