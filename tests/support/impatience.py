"""A gateway that waits seconds where others wait minutes, for what takes long to be seen: faults of
models, models that go to sleep, ingress replicas that come. It traces, too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import Gateway, gateway

IDLE_S = 3.0
LOAD_TIMEOUT_S = 6.0
LOAD_RETRY_S = 20.0


@contextmanager
def impatient(mlflow_uri: str, folder: Path, *, spans_to: str) -> Iterator[Gateway]:
    """It serves the models whose names begin with `own`, each by a deployment of its own."""
    environment = {
        "MODELMUX_IDLE_TIMEOUT_S": str(IDLE_S),
        "MODELMUX_LOAD_TIMEOUT_S": str(LOAD_TIMEOUT_S),
        "MODELMUX_LOAD_RETRY_S": str(LOAD_RETRY_S),
        "MODELMUX_TRACING": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": spans_to,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "MODELMUX_INGRESS_MAX_REPLICAS": "2",
        "MODELMUX_INGRESS_TARGET_REQUESTS": "4",
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",
    }
    options = ("--include", "own *", "--poll-interval-s", "2")
    with gateway(mlflow_uri, folder, *options, environment=environment) as running:
        yield running
