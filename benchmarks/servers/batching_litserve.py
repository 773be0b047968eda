"""The model on LitServe, batched: `batching_litserve.py PORT MODEL`."""

from __future__ import annotations

import sys
from typing import Any

import litserve
import mlflow
import pandas as pd

# What was fastest here of 16 and 64 requests, of 1, 5 and 20 ms.
_BATCH_REQUESTS = 64
_BATCH_S = 0.005


class Flowers(litserve.LitAPI):
    """A batch is the rows of several requests, and how many each of them had."""

    def __init__(self, model: str) -> None:
        super().__init__(max_batch_size=_BATCH_REQUESTS, batch_timeout=_BATCH_S)
        self._path = model

    def setup(self, device: str) -> None:
        """Load, in the worker."""
        self._model = mlflow.pyfunc.load_model(self._path)

    # LitServe makes its route of the annotations of these two, and is fastest without any.
    def decode_request(self, request):  # type: ignore[no-untyped-def]
        """The rows of a request."""
        return request["records"]

    def batch(self, inputs: list[Any]) -> Any:
        """One table of them all."""
        records = [record for each in inputs for record in each]
        return pd.DataFrame(records), [len(each) for each in inputs]

    def predict(self, x: Any) -> Any:
        """The values by request."""
        frame, counts = x
        values = iter(self._model.predict(frame).tolist())
        return [[next(values) for _ in range(count)] for count in counts]

    def unbatch(self, output: Any) -> Any:
        """They are apart already."""
        return output

    def encode_response(self, output):  # type: ignore[no-untyped-def]
        """As they are."""
        return output


if __name__ == "__main__":
    server = litserve.LitServer(
        Flowers(sys.argv[2]), accelerator="cpu", timeout=60, fast_queue=True
    )
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
