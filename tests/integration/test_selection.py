"""Which of the registry's models a gateway serves."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pandas as pd

from tests.support.processes import Gateway, gateway
from tests.support.registering import columns, register

NUMBER = columns(("x", "double"))


def _tell_token(rows: pd.DataFrame, params: object) -> pd.DataFrame:
    return pd.DataFrame({"y": [os.environ.get("MLFLOW_TRACKING_TOKEN", "")] * len(rows)})


def test_include_and_exclude_pick_the_models(
    mlflow_uri: str, shared_gateway: Gateway, tmp_path: Path
) -> None:
    """Only names that an include pattern admits and no exclude pattern refuses are there, MLflow's
    own variables reach the model, and no other gateway on the machine ever answers instead."""
    for name in ("picked one", "picked two", "other"):
        register(mlflow_uri, name, _tell_token, NUMBER, columns(("y", "string")))
    options = ("--include", "picked *", "--exclude", "* two")
    credentials = {"MLFLOW_TRACKING_TOKEN": "reaches the replica"}
    shared_gateway.sync()
    with gateway(mlflow_uri, tmp_path, *options, environment=credentials) as running:
        assert running.predict("picked one", {"x": 1}).json() == [{"y": "reaches the replica"}]
        for _ in range(20):
            listing = httpx.get(f"{running.url}/models", timeout=30).json()
            assert [model["name"] for model in listing["models"]] == ["picked one"]
            others = httpx.get(f"{shared_gateway.url}/models", timeout=30).json()
            assert "picked two" in {model["name"] for model in others["models"]}
