"""An MLflow server with models, a gateway before it, and asking it once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from benchmarks.contenders.contender import written
from benchmarks.contenders.modelmux import whole_gateway
from benchmarks.driving import Exchange
from examples.quiet import quiet_mlflow
from tests.support.processes import Gateway, mlflow_server

CHAMPION = "champion"
VERSION_HEADER = "X-Model-Version"


@contextmanager
def world(
    folder: Path,
    fill: Callable[[str], None],
    *options: str,
    environment: Mapping[str, str] | None = None,
) -> Iterator[tuple[Gateway, MlflowClient]]:
    """A gateway over a registry that `fill` has filled, given the server's URL."""
    folder.mkdir(parents=True, exist_ok=True)
    with mlflow_server(folder) as uri:
        with quiet_mlflow(), redirect_stderr(StringIO()):
            fill(uri)
        with whole_gateway(uri, folder, *options, environment=environment) as started:
            yield started, MlflowClient(uri, uri)


def predict_url(started: Gateway, model: str) -> str:
    """Where a model answers."""
    return f"{started.url}/models/{model}/predict"


def exchanges(started: Gateway, model: str, bodies: Sequence[Any]) -> list[Exchange]:
    """Ask each once, one after the other; what later answers have to be equal to."""
    made = []
    for body in bodies:
        response = started.predict(model, body)
        assert response.status_code == 200, response.text
        made.append(Exchange(body=written(body), answer=response.text))
    return made
