"""Span export: OpenTelemetry's SDK and OTLP exporter, set by the standard `OTEL_…` variables.

Imported only where tracing is on: needs `modelmux[tracing]`. The tracer is ours alone, not the
process's global one, which others may set. Imports nothing else of ours.
"""

from __future__ import annotations

import os
import threading

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Tracer

_SERVICE = "modelmux"


class SpanExport:
    """Takes the spans of this process, `part` of the gateway, and sends them in batches."""

    def __init__(self, part: str) -> None:
        # An empty variable counts as none (so the SDK does with the others, too).
        named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        )
        attributes = {"process.part": part} | ({} if named else {"service.name": _SERVICE})
        # At exit the process would wait for a collector that is away.
        self._provider = TracerProvider(
            resource=Resource.create(attributes), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))

    def tracer(self) -> Tracer:
        """What makes spans."""
        return self._provider.get_tracer(_SERVICE)

    def close(self, *, timeout_s: float) -> None:
        """Send what there is, waiting so long at most; blocks."""
        # The SDK's own limit doesn't hold: a flush waits for its exporter whatever it is told.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(timeout_s)
