"""A gateway with all models of the contract suite; the seed and time to fuzz it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.processes import Gateway, gateway, mlflow_server

SEED = int(os.environ.get("SEED") or 1)
"""Where chance begins; `make fuzz SEED=n` tries others."""

SECONDS = float(os.environ.get("FUZZ_SECONDS") or 15)
"""How long each part that can go on may take; `make fuzz FUZZ_SECONDS=n`."""


@pytest.fixture(scope="package")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that serves models of many kinds, and none that other tests make for their own
    ends; `versions` answers for sure."""
    from tests.support.contract_models import register_all  # imports MLflow: not for unit tests

    with mlflow_server(tmp_path_factory.mktemp("fuzz-mlflow")) as uri:
        register_all(uri)
        folder = tmp_path_factory.mktemp("fuzz-gateway")
        with gateway(uri, folder, "--poll-interval-s", "2") as running:
            assert running.predict("versions", {"x": 1}).json() == [{"x": 1.0}]
            yield running
