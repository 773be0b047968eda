"""The model on BentoML, batched; `bentoml serve` with the model's folder in FLOWERS_MODEL."""

from __future__ import annotations

import os

import bentoml
import mlflow
import pandas as pd

# As large as MLServer's; other sizes were not compared.
_BATCH_ROWS = 64
_LATENCY_MS = 10_000


@bentoml.service(
    workers=1,
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Flowers:
    """Two routes of the same call: rows of several requests together, and a list alone."""

    def __init__(self) -> None:
        self._model = mlflow.pyfunc.load_model(os.environ["FLOWERS_MODEL"])

    @bentoml.api(batchable=True, max_batch_size=_BATCH_ROWS, max_latency_ms=_LATENCY_MS)
    def predict(self, rows: list[dict[str, float]]) -> list[float]:
        """The rows of several requests."""
        return self._model.predict(pd.DataFrame(rows)).tolist()

    @bentoml.api
    def predict_list(self, rows: list[dict[str, float]]) -> list[float]:
        """The rows of one request."""
        return self._model.predict(pd.DataFrame(rows)).tolist()
