"""The gateway over models that MLflow loaded in this process: what clients ask and are
answered, without Ray, a registry and processes of models. And a real port for either's clients.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import orjson
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from deployments.model_process.answers import Reading
from deployments.model_process.input import Inputs, rows_of, taken
from deployments.model_process.output import plain_output
from gateway.errors import ModelFailed
from gateway.http.access_control import Access
from gateway.http.app import create_app
from gateway.http.predict.body import HttpLimits
from gateway.metrics.counters import Traffic
from gateway.ports import Call, CallResult
from gateway.prediction import PredictionService
from tests.support.catalogs import catalog, served, version
from tests.support.processes import poll
from tests.support.static_feed import StaticFeed


class PyfuncBackend:
    """Calls models as their processes do, in a thread."""

    def __init__(self, models: Mapping[str, Any]) -> None:
        self._models = models

    async def call(self, call: Call) -> CallResult:
        model = self._models[call.model.name]
        frame = (call.frame.layout, call.frame.names, call.frame.columns)
        try:
            answer = await asyncio.to_thread(_answer, model, frame, dict(call.params))
        except Exception as error:  # the model's own code, as in `model_process.job`
            raise ModelFailed("The model failed.") from error
        return CallResult(output=answer)


def _answer(model: Any, frame: tuple[Any, ...], params: dict[str, Any]) -> Any:
    def asked(about: tuple[Any, ...]) -> Any:
        return model.predict(Inputs.of(model).made_of(*about), params=params)

    read = Reading.of(model).read(
        asked(frame), rows_of(frame), lambda rows: asked(taken(frame, rows))
    )
    return plain_output(read)


def gateway_of(
    folders: Mapping[str, Path],
    *,
    access: Access | None = None,
    traffic: Traffic | None = None,
    max_rows: int = 200_000,
    max_body_bytes: int = 50_000_000,
) -> FastAPI:
    """An application that serves the models saved in these folders, by their names."""
    models = {name: mlflow.pyfunc.load_model(str(path)) for name, path in folders.items()}
    all_served = (
        served(version(1, _signature(model)), name=name, aliases={"champion": 1})
        for name, model in models.items()
    )
    feed = StaticFeed(catalog(*all_served))
    service = PredictionService(
        feed=feed, submit=PyfuncBackend(models).call, default_timeout_s=60, max_rows=max_rows
    )
    limits = HttpLimits(max_body_bytes=max_body_bytes)
    return create_app(service=service, feed=feed, limits=limits, access=access, traffic=traffic)


def _signature(model: Any) -> str:
    metadata = model.metadata
    signature = metadata.signature.to_dict()
    hinted = bool(getattr(metadata.signature, "_is_signature_from_type_hint", False))
    return orjson.dumps({**signature, "is_signature_from_type_hint": hinted}).decode()


@contextmanager
def listening(app: ASGIApp) -> Iterator[int]:
    """The port of a server of the application, in a thread."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        poll(lambda: server.started, timeout_s=30)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
