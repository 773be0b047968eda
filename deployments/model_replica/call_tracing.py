"""Spans of a model's process: a call's time there, loading and the model's own code in it.

Imported only where tracing is on. Travels to the replica by value, like
`deployments.model_replica.versions`, and imports nothing of ours but what travels likewise."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from deployments.model_replica.span_export import SpanExport

_NOTABLE_S = 0.001


class CallTrace:
    """The trace of one call, for whichever thread has it."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._context = set_span_in_context(span, Context())

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The model's own code runs, on this thread: what it traces itself belongs to this."""
        span = self._tracer.start_span("run model", context=self._context)
        with use_span(
            span, end_on_exit=True, record_exception=False, set_status_on_exception=False
        ):
            try:
                yield
            except BaseException:
                span.set_status(StatusCode.ERROR)
                raise

    def note_load(self, spent_s: float) -> None:
        """The version was waited for until now, so long."""
        if spent_s >= _NOTABLE_S:
            end = time.time_ns()
            begin = end - int(spent_s * 1e9)
            self._tracer.start_span("load version", context=self._context, start_time=begin).end(
                end
            )

    def note_outcome(self, kind: str) -> None:
        """What came of the call (see `VersionHost.predict`)."""
        if kind != "ok":
            self._span.set_attribute("error.type", kind)
            self._span.set_status(StatusCode.ERROR)


class CallTracer:
    """Makes the spans of the process of `model`."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._export = SpanExport("model")
        self._tracer = self._export.tracer()

    @contextlib.contextmanager
    def call(self, traceparent: str, number: int, way: str) -> Iterator[CallTrace]:
        """A call of a version comes from the span `traceparent`, by `handle` or by `socket`."""
        caller_s = TraceContextTextMapPropagator().extract({"traceparent": traceparent}, Context())
        span = self._tracer.start_span(
            "answer call",
            context=caller_s,
            kind=SpanKind.SERVER,
            attributes={"model.name": self._model, "model.version": number, "call.way": way},
        )
        try:
            yield CallTrace(self._tracer, span)
        finally:
            span.end()

    def close(self, *, timeout_s: float) -> None:
        """See `SpanExport.close`."""
        self._export.close(timeout_s=timeout_s)
