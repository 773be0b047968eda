"""Trace context (W3C) of a call, for what a model traces itself.

Only where the model's environment has OpenTelemetry's API (MLflow's full package brings it); the
spans of the call itself are the gateway's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def within_trace(traceparent: str | None) -> Iterator[None]:
    """The code inside belongs to the span `traceparent` (W3C Trace Context)."""
    if traceparent is None:
        yield
        return
    try:
        from opentelemetry import context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ImportError:
        yield
        return
    token = context.attach(TraceContextTextMapPropagator().extract({"traceparent": traceparent}))
    try:
        yield
    finally:
        context.detach(token)
