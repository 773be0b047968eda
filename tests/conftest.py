"""One MLflow server and one gateway for the whole session, both real; a browser, a Prometheus."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.chromium import chromium
from tests.processes import Gateway, gateway, mlflow_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_SHARED = {"shared_gateway": "gateway", "gateway_client": "gateway", "fuzzed": "fuzz"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several processes (`-n 2 --dist loadgroup`), what shares a gateway is run in one of
    them, and begins first; the rest goes file by file, and unit tests fill the gaps."""
    if not hasattr(config.option, "dist"):
        return
    order = {item: _rank(item) for item in items}
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            group = next(filter(None, map(_SHARED.get, _fixtures(item))), None)
            item.add_marker(pytest.mark.xdist_group(group or item.path.stem))
    items.sort(key=order.__getitem__)


def _rank(item: pytest.Item) -> int:
    if not _SHARED.keys().isdisjoint(_fixtures(item)):
        return 0
    return 2 if "unit" in item.path.parts else 1


def _fixtures(item: pytest.Item) -> tuple[str, ...]:
    return tuple(getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real MLflow server on SQLite."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


@pytest.fixture(scope="session")
def registered(mlflow_uri: str) -> str:
    """The session's MLflow server with every model of the contract suite."""
    from tests.contract.models import register_all  # imports MLflow: not for unit tests

    register_all(mlflow_uri)
    return mlflow_uri


@pytest.fixture(scope="session")
def shared_gateway(mlflow_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A real gateway on a real local Ray, over the session's MLflow server.

    Tests that need a registry or settings of their own start their own.
    """
    folder = tmp_path_factory.mktemp("gateway")
    # Models that no test asks any more don't have to run beside the others' all the time.
    calm = {"MODELMUX_IDLE_TIMEOUT_S": "60"}
    with gateway(mlflow_uri, folder, "--poll-interval-s", "5", environment=calm) as running:
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
