"""The model that MODEL names on mosec, batched; the command line is mosec's own."""

from __future__ import annotations

import os
from typing import Any

import mlflow
import orjson
import pandas as pd
from mosec import Server, Worker

# What favours it: of 16, 64 and 256 requests, of 1, 5 and 10 ms.
_BATCH_REQUESTS = 64
_BATCH_MS = 1


class Flowers(Worker):
    """A batch is the rows of several requests."""

    def __init__(self) -> None:
        self._model = mlflow.pyfunc.load_model(os.environ["MODEL"])

    def deserialize(self, data: bytes) -> Any:
        """A request's rows; mosec's own is the standard library's `json`, which is slower."""
        return orjson.loads(data)

    def forward(self, data: list[Any]) -> list[Any]:
        """The values by request."""
        frame = pd.DataFrame([record for each in data for record in each])
        values = iter(self._model.predict(frame).tolist())
        return [[next(values) for _ in each] for each in data]

    def serialize(self, data: Any) -> bytes:
        """As JSON."""
        return orjson.dumps(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Flowers, num=1, max_batch_size=_BATCH_REQUESTS, max_wait_time=_BATCH_MS)
    server.run()
