"""One MLflow server and one gateway for the whole session, both real; a browser, a Prometheus."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.support.chromium import chromium
from tests.support.impatience import impatient
from tests.support.processes import Gateway, free_port, gateway, mlflow_server
from tests.support.scheduling import Together, arrange, file_of, shared_by

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from xdist.remote import Producer

    from tests.support.span_receiver import SpanReceiver

# Images of Python often have this variable, and uv installs packages without their byte code: then
# each of the hundreds of processes of a run compiles Ray, MLflow and pandas for itself, which is
# more than half of what importing them takes.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# How long one example takes says how busy the machine is.
settings.register_profile("on any machine", deadline=None)
settings.load_profile("on any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is shared and what takes long begins first (see `tests.support.scheduling`)."""
    arrange(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together:
    """With several processes (`-n`): what shares a gateway is run in one of them."""
    return Together(config, log)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """What is shared ends with the last test that needs it: a gateway with all its models takes a
    good part of a processor, however idle. Whoever asked for it after that would have it started
    anew."""
    shared = shared_by(file_of(item.nodeid))
    follows = None if nextitem is None else shared_by(file_of(nextitem.nodeid))
    if shared is not None and follows != shared:
        for fixture in item.session._fixturemanager.getfixturedefs(shared, item) or ():
            fixture.finish(item._request)  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SQLite file of a registry with nothing in it, to be copied: MLflow takes a while to make
    one. What is logged to a copy has its artifacts beside this one."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("empty-registry")
    with chdir(folder):
        MlflowClient(f"sqlite:///{folder / 'registry.db'}").search_experiments()
    return folder / "registry.db"


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real MLflow server on SQLite."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


@pytest.fixture(scope="session")
def contract_models(mlflow_uri: str) -> frozenset[str]:
    """The names of all models of the contract suite, which the session's MLflow server has."""
    from tests.support.contract_models import register_all  # imports MLflow: not for unit tests

    return register_all(mlflow_uri)


@pytest.fixture(scope="session")
def registered(mlflow_uri: str, contract_models: frozenset[str]) -> str:
    """The session's MLflow server with every model of the contract suite."""
    assert contract_models
    return mlflow_uri


@pytest.fixture(scope="session")
def grpc_port() -> int:
    """Where the shared gateway answers gRPC."""
    return free_port()


@pytest.fixture(scope="session")
def shared_gateway(
    mlflow_uri: str, grpc_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A real gateway on a real local Ray, over the session's MLflow server.

    Tests that need a registry or settings of their own start their own.
    """
    folder = tmp_path_factory.mktemp("gateway")
    # Models that no test asks any more don't have to run beside the others' all the time. In one
    # replica they start in a tenth of the time; a deployment per model, the default, is what all
    # gateways of single modules have.
    calm = {
        "MODELMUX_IDLE_TIMEOUT_S": "60",
        "MODELMUX_DEPLOYMENT": "shared",
        "MODELMUX_GRPC_PORT": str(grpc_port),
        "MODELMUX_CAPTURE_URL": str(folder / "captured"),
        "MODELMUX_CAPTURE_FILE_AGE_S": "5",
    }
    with gateway(mlflow_uri, folder, "--poll-interval-s", "5", environment=calm) as running:
        yield running


@pytest.fixture(scope="session")
def span_receiver() -> Iterator[SpanReceiver]:
    """What the impatient gateway sends its spans to."""
    from tests.support import span_receiver as module  # imports OpenTelemetry

    with module.span_receiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def impatient_gateway(
    mlflow_uri: str, span_receiver: SpanReceiver, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """See `tests.support.impatience`."""
    folder = tmp_path_factory.mktemp("impatient")
    with impatient(mlflow_uri, folder, spans_to=span_receiver.url) as running:
        yield running


@pytest.fixture(scope="session")
def demo_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the demo models' weights are kept, so that they are trained once a session."""
    return tmp_path_factory.mktemp("demo-models")


@pytest.fixture(scope="session")
def promtool() -> str:
    """Prometheus' own checking tool; the server is there where it is."""
    found = shutil.which("promtool")
    if found is None or shutil.which("prometheus") is None:
        assert os.environ.get("PROMETHEUS_TESTS") != "required", "no Prometheus is installed"
        pytest.skip("no Prometheus is installed; .ci/run installs it")
    return found


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A headless Chromium that asks nobody by itself."""
    with chromium() as launched:
        yield launched
