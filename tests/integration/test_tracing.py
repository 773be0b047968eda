"""Traces of a real gateway, sent to a small OTLP receiver in this process."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd
import pytest

from tests.processes import Gateway, gateway, poll
from tests.registering import client, columns, register
from tests.span_receiver import ReceivedSpan, SpanReceiver, span_receiver

NUMBER = columns(("x", "double"))
NAME = "traced"


def _traced(rows: pd.DataFrame, params: Any) -> list[str]:
    """Tells the trace that its own code is in, as any instrumented library would find it."""
    from opentelemetry.trace import get_current_span

    time.sleep(0.05)  # the model's own slowness: the others gather meanwhile
    if (rows["x"] < 0).any():
        raise ValueError("negative")
    span = get_current_span().get_span_context()
    return [f"{span.trace_id:032x}-{span.span_id:016x}"] * len(rows)


@pytest.fixture(scope="module")
def receiver() -> Iterator[SpanReceiver]:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    with span_receiver() as running:
        yield running


@pytest.fixture(scope="module")
def traced(
    mlflow_uri: str, receiver: SpanReceiver, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway that traces one model, with batching."""
    register(mlflow_uri, NAME, _traced, NUMBER, columns(("where", "string")))
    client(mlflow_uri).set_registered_model_tag(NAME, "modelmux.batching", "on")
    environment = {
        "MODELMUX_TRACING": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    folder = tmp_path_factory.mktemp("traced")
    with gateway(mlflow_uri, folder, "--include", NAME, environment=environment) as running:
        yield running


def new_trace() -> tuple[str, str, str]:
    """A trace's id, the id of the caller's span, and the header that names both."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, f"00-{trace}-{span}-01"


def spans_of(receiver: SpanReceiver, trace: str, *names: str) -> dict[str, ReceivedSpan]:
    """The spans of a trace by their names, once all of these are there."""
    wanted = {"POST /models/{name}/predict", "call model", "answer call", "run model", *names}
    poll(
        lambda: wanted <= {span.name for span in receiver.of_trace(trace)},
        what=f"the spans of a trace ({[span.name for span in receiver.all()]})",
    )
    return {span.name: span for span in receiver.of_trace(trace)}


def test_one_trace_goes_from_the_caller_to_the_model_s_own_code(
    traced: Gateway, receiver: SpanReceiver
) -> None:
    """By handle first, by the model's socket later: each span has the right parent and process."""
    for names in (("load version",), ()):
        trace, caller, header = new_trace()
        answer = traced.predict(NAME, {"x": 1}, traceparent=header, X_Model_Version="1")
        assert answer.status_code == 200, answer.text
        spans = spans_of(receiver, trace, *names)
        request, call = spans["POST /models/{name}/predict"], spans["call model"]
        answering, running = spans["answer call"], spans["run model"]
        assert request.parent == caller
        assert call.parent == request.id
        assert answering.parent == call.id
        assert running.parent == answering.id
        assert [span.part for span in (request, call, answering, running)] == [
            "ingress", "ingress", "model", "model",
        ]  # fmt: skip
        assert {span.service for span in spans.values()} == {"modelmux"}
        assert request.begin_ns <= call.begin_ns <= call.end_ns <= request.end_ns
        assert running.end_ns - running.begin_ns >= 50_000_000
        assert answer.json() == [{"where": f"{trace}-{running.id}"}]
        assert request.attributes == {
            "http.request.method": "POST",
            "http.route": "/models/{name}/predict",
            "http.response.status_code": 200,
            "model.name": NAME,
            "model.version": 1,
            "model.rows": 1,
        }
        if names:
            assert spans["load version"].parent == answering.id
        # Until the calls come by the socket: a line is there a moment after the first.
        poll(lambda: "load;dur=0.00" in traced.predict(NAME, {"x": 1}).headers["Server-Timing"])


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
    assert spans["answer call"].attributes["error.type"] == "model_failed"
    assert "negative" not in repr(receiver.all())


def test_a_caller_s_no_is_a_no_for_all_processes(traced: Gateway, receiver: SpanReceiver) -> None:
    """A traceparent that isn't sampled has no spans anywhere; what was asked without one has."""
    trace, _, header = new_trace()
    answer = traced.predict(NAME, {"x": 1}, traceparent=header.removesuffix("01") + "00")
    assert answer.json()[0]["where"].startswith(trace)
    where = traced.predict(NAME, {"x": 1}).json()[0]["where"]
    spans_of(receiver, where.split("-")[0])
    assert receiver.of_trace(trace) == []
