"""A saved model behind a gateway in this process: its real HTTP application and micro-batcher, one
real model process of a given interpreter. No Ray, no registry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from deployments.model_calls.outcomes import call_result, packed_call
from deployments.model_replica.start_methods import start_method
from deployments.model_replica.version_process import VersionProcess
from gateway.batching.batcher import MicroBatcher
from gateway.catalog import Catalog, ModelVersion, ServedModel
from gateway.http.app import create_app
from gateway.http.predict.body import HttpLimits
from gateway.ports import Call, CallResult
from gateway.prediction import PredictionService
from registry_sync.mlmodel import read_mlmodel
from tests.support.flavor_processes import SavedModel, Started, starting
from tests.support.static_feed import StaticFeed

NAME = "model"


@dataclass(frozen=True)
class _Backend:
    """Fulfils `PredictionBackend` by one process."""

    process: VersionProcess

    async def call(self, call: Call) -> CallResult:
        """See `PredictionBackend.call`."""
        message = packed_call(
            call.frame, call.params, give_up_at=call.deadline.at_s, patience_s=call.patience_s
        )
        return call_result(await self.process.call(message))


@dataclass(frozen=True, kw_only=True)
class Served:
    """The model's version as the registry's side reads it, its process, and a client."""

    version: ModelVersion
    started: Started
    client: httpx.AsyncClient


def version_of(model: SavedModel) -> ModelVersion:
    """The version as it is read from its MLmodel file."""
    facts = read_mlmodel((model.folder / "MLmodel").read_text())
    return ModelVersion(
        number=1,
        fingerprint="f",
        signature=facts.signature,
        problem=facts.problem,
        flavor=facts.flavor,
    )


@asynccontextmanager
async def serving(model: SavedModel, interpreter: str) -> AsyncIterator[Served]:
    """A gateway that serves the model."""
    version = version_of(model)
    served = ServedModel(
        name=NAME, versions=(version,), default_version=1, contract=version.signature
    )
    feed = StaticFeed(Catalog(generation=1, models={NAME: served}))
    async with starting(start_method(version.flavor), interpreter) as starter:
        started = await starter.load(model)
        batcher = MicroBatcher(_Backend(started.process))
        service = PredictionService(feed=feed, submit=batcher.submit, default_timeout_s=120.0)
        app = create_app(service=service, feed=feed, limits=HttpLimits(max_body_bytes=1 << 20))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://flavors") as client:
            yield Served(version=version, started=started, client=client)
