"""Under which name spans go."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from deployments.ingress.span_export import SpanExport


@pytest.mark.parametrize(
    ("environment", "service"),
    [
        ({}, "modelmux"),
        ({"OTEL_SERVICE_NAME": "mine"}, "mine"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "a=b,service.name=mine"}, "mine"),
        (
            dict.fromkeys(
                ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_TRACES_SAMPLER",
                 "OTEL_TRACES_SAMPLER_ARG", "OTEL_EXPORTER_OTLP_ENDPOINT",
                 "OTEL_EXPORTER_OTLP_HEADERS"),
                "",
            ),
            "modelmux",
        ),
    ],
)  # fmt: skip
def test_an_empty_variable_says_nothing(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], service: str
) -> None:
    """The service is modelmux until a variable names another; a line of `.env` without a value
    doesn't, and changes nothing else either."""
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    export = SpanExport("ingress")
    span = export.tracer().start_span("a span that isn't sent, because it doesn't end")
    assert isinstance(span, ReadableSpan)
    assert span.resource.attributes["service.name"] == service
    assert span.is_recording()
    export.close(timeout_s=1)
