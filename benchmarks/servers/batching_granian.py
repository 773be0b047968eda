"""The model behind granian's RSGI, batched: `batching_granian.py PORT MODEL`.

What comes while the model computes waits in the server's own thread, and comes at once; so a batch
is whatever has come since the one before.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import mlflow
import orjson
import pandas as pd
from granian import Granian
from granian.constants import Interfaces, Loops

_MODEL = "MODEL"
_JSON = [("content-type", "application/json")]
_MOST_REQUESTS = 64


class Flowers:
    """An application of RSGI's (https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md)."""

    def __init__(self) -> None:
        self._model = mlflow.pyfunc.load_model(os.environ[_MODEL])
        self._waiting: list[tuple[list[Any], asyncio.Future[list[float]]]] = []

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """A list of records; anything but POST is told that it is up."""
        if scope.method != "POST":
            protocol.response_str(200, [], "up")
            return
        records = orjson.loads(await protocol())
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[float]] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._predict)
        self._waiting.append((records, answer))
        protocol.response_bytes(200, _JSON, orjson.dumps(await answer))

    def _predict(self) -> None:
        batch, self._waiting = self._waiting[:_MOST_REQUESTS], self._waiting[_MOST_REQUESTS:]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._predict)
        frame = pd.DataFrame([record for records, _ in batch for record in records])
        values = iter(self._model.predict(frame).tolist())
        for records, answer in batch:
            answer.set_result([next(values) for _ in records])


def flowers(*_: Any, **__: Any) -> Flowers:
    """Loads the model; in the worker."""
    return Flowers()


if __name__ == "__main__":
    os.environ[_MODEL] = sys.argv[2]
    Granian(
        "benchmarks.servers.batching_granian:flowers",
        factory=True,
        address="127.0.0.1",
        port=int(sys.argv[1]),
        interface=Interfaces.RSGI,
        loop=Loops.uvloop,
        workers=1,
        log_access=False,
    ).serve()
