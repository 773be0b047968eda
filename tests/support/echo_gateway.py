"""A gateway over models that answer what they were given, for tests of protocols."""

from __future__ import annotations

from typing import Any

import httpx
import orjson
from mlflow.models.signature import ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema

from gateway.contract import Output
from gateway.http.access_control import Access
from gateway.http.app import create_app
from gateway.http.predict.body import HttpLimits
from gateway.metrics.counters import Traffic
from gateway.ports import Call, CallResult
from gateway.prediction import PredictionService
from tests.support.catalogs import catalog, served, version
from tests.support.static_feed import StaticFeed


def signature(
    inputs: list[Any], outputs: list[Any] | None = None, params: list[ParamSpec] | None = None
) -> str:
    """The text of an MLmodel's signature; the outputs are the inputs where none are given."""
    made = ModelSignature(
        Schema(inputs),
        Schema(inputs if outputs is None else outputs) if outputs != [] else None,
        ParamSchema(params) if params else None,
    )
    return orjson.dumps(made.to_dict()).decode()


class Echo:
    """A backend whose models answer their own inputs; calls are kept. Or they fail as told."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.error: BaseException | None = None

    async def call(self, call: Call) -> CallResult:
        self.calls.append(call)
        if self.error is not None:
            raise self.error
        frame = call.frame
        names = [str(name) for name in frame.names]
        output: Output = ("columns", names, frame.columns)
        if frame.layout in ("tensor", "values"):
            output = ("values", frame.columns[0])
        return CallResult(output=output)


class EchoGateway:
    """The application over models `m` of these signatures (the last is the default)."""

    def __init__(
        self,
        *signatures: str,
        access: Access | None = None,
        max_body_bytes: int = 1024 * 1024,
        **fields: Any,
    ) -> None:
        versions = [version(i + 1, text) for i, text in enumerate(signatures)]
        self.backend = Echo()
        self.traffic = Traffic()
        self.feed = StaticFeed(catalog(served(*versions, **fields)))
        self.service = PredictionService(
            feed=self.feed, submit=self.backend.call, default_timeout_s=60, max_rows=1000
        )
        self.app = create_app(
            service=self.service,
            feed=self.feed,
            limits=HttpLimits(max_body_bytes=max_body_bytes),
            traffic=self.traffic,
            access=access,
        )

    def client(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://gateway")
