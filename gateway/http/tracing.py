"""Traces: what a request's time was spent on, across processes (OpenTelemetry, W3C Trace Context).

One trace goes from the HTTP request through the call to the model's own code. A caller's
`traceparent` is taken up, and passed on to the model's process. Imported only where tracing is on;
elsewhere a request pays a comparison with None (docs/decisions/0025). Needs OpenTelemetry's API
alone: where spans go is said by who makes the tracer. Must not import ray, mlflow or fastapi.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import replace
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
    use_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import InternalError
from gateway.http.access_log import answered
from gateway.http.predict.disconnect import is_left
from gateway.http.predict.path import PREDICT_PATH
from gateway.ports import LOAD_STEP, MODEL_STEP, Call, CallResult, PredictionBackend, Submit

_W3C = TraceContextTextMapPropagator()
_HEADERS = {b"traceparent": "traceparent", b"tracestate": "tracestate"}
_SERVER_ERROR = 500
_NOTABLE_MS = 1.0


class RequestTracing:
    """Spans of predictions' HTTP requests."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def around(
        self,
        app: ASGIApp,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        route: str = PREDICT_PATH,
    ) -> None:
        """Have `app` answer the HTTP request in `scope`, under a span that is named by its path's
        pattern."""
        span = self._tracer.start_span(
            f"POST {route}",
            context=_caller_s_context(scope),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": "POST", "http.route": route},
        )

        async def noting(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                _note_status(span, message["status"])
            await send(message)

        # What the exception says may repeat what a caller sent: it becomes no part of the span.
        with use_span(
            span, end_on_exit=True, record_exception=False, set_status_on_exception=False
        ):
            try:
                await app(scope, receive, noting)
            except BaseException as error:
                if not is_left(error):
                    _note_status(span, InternalError.status)  # as the `Boundary` will answer
                raise
            finally:
                _note_model(span, *answered(scope))


class TraceOrigins:
    """In front of the batcher: each call remembers whose it is."""

    def __init__(self, submit: Submit) -> None:
        self._submit = submit

    async def submit(self, call: Call) -> CallResult:
        """See `MicroBatcher.submit`."""
        return await self._submit(replace(call, origins=(get_current_span(),)))


class CallTracing:
    """A `PredictionBackend` behind the batcher: a span for each call that goes to a model.

    It is a child of the first request in the call. With the others it is linked both ways: a span
    has one parent, and nobody's trace should lack the call.
    """

    def __init__(self, backend: PredictionBackend, tracer: Tracer) -> None:
        self._backend = backend
        self._tracer = tracer

    async def call(self, call: Call) -> CallResult:
        """See `PredictionBackend.call`."""
        spans: list[Span] = list(dict.fromkeys(call.origins))
        parent = set_span_in_context(spans[0], Context()) if spans else Context()
        with self._tracer.start_as_current_span(
            "call model",
            context=parent,
            kind=SpanKind.CLIENT,
            links=[Link(span.get_span_context()) for span in spans[1:]],
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            _note_model(span, call.model.name, call.version.number, call.frame.rows)
            for other in spans[1:]:
                if other.is_recording():  # else its caller has left
                    other.add_link(span.get_span_context())
            carrier: dict[str, str] = {}
            _W3C.inject(carrier)
            try:
                result = await self._backend.call(
                    replace(call, traceparent=carrier.get("traceparent"))
                )
                self._note_steps(span, result)
                return result
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(StatusCode.ERROR)
                raise

    def _note_steps(self, span: Span, result: CallResult) -> None:
        """Spans of what the version's process has told: it needs no OpenTelemetry of its own."""
        load_ms = result.timings_ms.get(LOAD_STEP)
        span.set_attribute("call.way", "process" if load_ms is None else "replica")
        begun_at, context = result.begun_at_ns, set_span_in_context(span, Context())
        if not begun_at:
            return
        if load_ms is not None and load_ms >= _NOTABLE_MS:
            loading = self._tracer.start_span(
                "load version", context, start_time=begun_at - int(load_ms * 1e6)
            )
            loading.end(begun_at)
        running = self._tracer.start_span("run model", context, start_time=begun_at)
        running.end(begun_at + int(result.timings_ms.get(MODEL_STEP, 0.0) * 1e6))


def _caller_s_context(scope: Scope) -> Context:
    """The span that the headers name. Of more than one `traceparent` none is meant (W3C Trace
    Context); a `tracestate` may come in parts."""
    given: dict[str, list[str]] = {"traceparent": [], "tracestate": []}
    for name, value in scope["headers"]:
        if name in _HEADERS:
            given[_HEADERS[name]].append(value.decode("latin-1"))
    if len(given["traceparent"]) != 1:
        return Context()
    carrier = {name: ",".join(values) for name, values in given.items() if values}
    return _W3C.extract(carrier, Context())


def _note_status(span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= _SERVER_ERROR:
        span.set_attribute("error.type", str(status))
        span.set_status(StatusCode.ERROR)


def _note_model(span: Span, name: str | None, number: int | None, rows: int | None) -> None:
    if name is not None:
        span.set_attribute("model.name", name)
    if number is not None:
        span.set_attribute("model.version", number)
    if rows is not None:
        span.set_attribute("model.rows", rows)
