"""One MLflow server and one gateway for the whole session, both real; a browser, a Prometheus."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.chromium import chromium
from tests.support.processes import Gateway, gateway, mlflow_server
from tests.support.scheduling import Together, place_of, shared_by

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from xdist.remote import Producer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones begin first (see `tests.support.scheduling`)."""
    items.sort(key=lambda item: place_of(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together:
    """With several processes (`-n`): what shares a gateway is run in one of them."""
    return Together(config, log)


_SHARED_GATEWAY = ExitStack()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """The shared gateway ends with the last test that needs it: with all its models it takes a good
    part of a processor, however idle."""
    follows = None if nextitem is None else shared_by(nextitem.nodeid)
    if shared_by(item.nodeid) == "gateway" != follows:
        _SHARED_GATEWAY.close()


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real MLflow server on SQLite."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


@pytest.fixture(scope="session")
def registered(mlflow_uri: str) -> str:
    """The session's MLflow server with every model of the contract suite."""
    from tests.support.contract_models import register_all  # imports MLflow: not for unit tests

    register_all(mlflow_uri)
    return mlflow_uri


@pytest.fixture(scope="session")
def shared_gateway(mlflow_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
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
        "MODELMUX_CAPTURE_URL": str(folder / "captured"),
        "MODELMUX_CAPTURE_FILE_AGE_S": "5",
    }
    with _SHARED_GATEWAY:
        yield _SHARED_GATEWAY.enter_context(
            gateway(mlflow_uri, folder, "--poll-interval-s", "5", environment=calm)
        )


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
