"""One suite over both backends: versions in this process, and versions on a real Ray."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import chdir

import httpx
import pytest
from fastapi import FastAPI

from gateway.catalog import Catalog
from gateway.http.app import create_app
from gateway.http.predict.body import HttpLimits
from gateway.prediction import PredictionService
from registry_sync.catalog_builder import build_catalog
from registry_sync.default_version import DefaultPolicy
from registry_sync.source import MlflowRegistry
from tests.contract.in_process import InProcessBackend
from tests.support.processes import Gateway
from tests.support.static_feed import StaticFeed


@pytest.fixture(scope="session")
def suite_catalog(registered: str) -> Catalog:
    reading = MlflowRegistry(tracking_uri=registered).read()
    return build_catalog(reading, None, policy=DefaultPolicy()).catalog


@pytest.fixture(scope="session")
def in_process_backend(
    registered: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[InProcessBackend]:
    backend = InProcessBackend(registered, tmp_path_factory.mktemp("in-process-artifacts"))
    yield backend
    backend.close()


@pytest.fixture(scope="session")
def serving_the_suite(registered: str, shared_gateway: Gateway) -> Gateway:
    """The session's gateway, which knows all of the suite's models."""
    shared_gateway.sync()
    return shared_gateway


@pytest.fixture(params=["in-process", "ray"])
async def gateway_client(
    request: pytest.FixtureRequest, registered: str
) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of a gateway that serves the suite's models, on either backend."""
    if request.param == "ray":
        gateway: Gateway = request.getfixturevalue("serving_the_suite")
        async with httpx.AsyncClient(base_url=gateway.url, timeout=90.0) as client:
            yield client
        return
    backend = request.getfixturevalue("in_process_backend")
    feed = StaticFeed(request.getfixturevalue("suite_catalog"))
    app = create_app(
        service=PredictionService(feed=feed, submit=backend.call, default_timeout_s=60.0),
        feed=feed,
        limits=HttpLimits(max_body_bytes=64 * 1024 * 1024),
    )
    # As a server would: an exception becomes a response, it doesn't reach the client's process.
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://in-process") as client:
        yield client


@pytest.fixture(scope="session")
def agents_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registry in a file with all agents of these tests."""
    from tests.support.agent_models import register_agents  # imports MLflow

    folder = tmp_path_factory.mktemp("agents")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with chdir(folder):  # where MLflow has its folder for runs, whatever is logged there
        register_agents(uri, folder)
    return uri


@pytest.fixture(scope="session")
def agents_catalog(agents_uri: str) -> Catalog:
    reading = MlflowRegistry(tracking_uri=agents_uri).read()
    return build_catalog(reading, None, policy=DefaultPolicy()).catalog


@pytest.fixture(scope="session")
def agents_backend(
    agents_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[InProcessBackend]:
    made = InProcessBackend(agents_uri, tmp_path_factory.mktemp("agents-artifacts"))
    yield made
    made.close()


@pytest.fixture
def agents_app(agents_catalog: Catalog, agents_backend: InProcessBackend) -> FastAPI:
    """The gateway's application over the agents, in this process."""
    feed = StaticFeed(agents_catalog)
    service = PredictionService(
        feed=feed,
        submit=agents_backend.call,
        streaming=agents_backend,
        default_timeout_s=60.0,
    )
    return create_app(service=service, feed=feed, limits=HttpLimits(max_body_bytes=1 << 20))
