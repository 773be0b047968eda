"""Registries on MLflow servers of other releases, real ones: `make old-servers`.

Not part of `make test` (`norecursedirs` in pyproject.toml). With RECORD=1 what they answered is
kept for the unit tests (`tests/unit/registry_sync/test_old_servers.py`).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import mlflow.pyfunc
import pandas as pd
import pytest

from deployments.model_process.artifacts import fetch_artifacts
from registry_sync.source import MlflowRegistry
from tests.support.old_mlflow import python_with, server_of
from tests.support.recorded_http import Recording, recorded

_FILL = Path(__file__).with_name("fill.py")
_KEPT = Path(__file__).parents[1] / "unit" / "registry_sync" / "recorded"
_FILL_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OldServer:
    """A server of that release with the models of `fill.py`."""

    release: str
    url: str


@pytest.fixture(scope="module", params=["1.30.1", "2.3.0", "2.9.2", "2.20.4", "2.22.0", "3.18.0"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OldServer]:
    python = python_with(request.param)
    folder: Path = tmp_path_factory.mktemp("mlflow")
    with server_of(python, folder) as url:
        subprocess.run(
            [python, _FILL, url], cwd=folder, timeout=_FILL_TIMEOUT_S, check=True,
            env={**os.environ, "PYTHONPATH": str(folder)},
        )  # fmt: skip
        told = httpx.get(f"{url}/version", timeout=30)  # from 2.0 on
        assert told.status_code == 404 or told.text == request.param
        yield OldServer(release=request.param, url=url)


def test_models_of_an_old_server_are_read(server: OldServer) -> None:
    """Models are listed with their versions, tags, stages and, where the release has these,
    aliases; prompts are no models."""
    recording = Recording()
    with recorded(server.url, recording) as url:
        (model,) = MlflowRegistry(tracking_uri=url).read()
    if os.environ.get("RECORD") == "1":
        recording.save(_KEPT / f"mlflow-{server.release}.json")
    assert model.name == "doubled"
    assert model.tags == {"team": "pricing"}
    assert model.description == "Doubles x."
    assert model.aliases == ({} if server.release == "1.30.1" else {"champion": 2})
    assert [version.number for version in model.versions] == [1, 2, 3]
    assert [version.unservable_reason for version in model.versions] == [None, None, None]


def test_a_version_of_an_old_server_answers(server: OldServer, tmp_path: Path) -> None:
    """The artifacts of a version that an old release logged are fetched as a model's process
    does it, and answer."""
    folder = fetch_artifacts(
        "doubled", 2, into=str(tmp_path), fingerprint="doubled/2",
        tracking_uri=server.url, registry_uri=server.url,
    )  # fmt: skip
    answer = mlflow.pyfunc.load_model(str(folder)).predict(pd.DataFrame({"x": [1.0, 2.0]}))
    assert list(answer) == [2.0, 4.0]
