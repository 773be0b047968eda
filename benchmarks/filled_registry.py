"""A real MLflow registry with many models, made quickly: for measuring, not for reading.

Every version has an artifact folder and a fingerprint of its own and every model a signature of
its own, as in a real registry, so that no cache of ours is flattered. All of them can be loaded
and called. Written by MLflow's client straight into the database, without a server.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import mlflow.sklearn
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from sklearn.linear_model import LinearRegression

_FEWEST_COLUMNS = 3
_WIDTHS = 30
_PLACE = "scale"  # the folder of the artifacts below the server's
_COLUMN = "column-of-model"  # stands in a template for the model's own columns
_FILLED = "filled"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryPlan:
    """How many models are registered, and how many versions of each."""

    models: int
    versions: int

    def name(self, index: int) -> str:
        """The name of a model."""
        return f"model-{index:04d}"

    def record(self, index: int) -> dict[str, float]:
        """A request body for a model."""
        columns = _FEWEST_COLUMNS + index % _WIDTHS
        return {f"{_own_column(index)}-{column}": 1.0 for column in range(columns)}


def fill_registry(folder: Path, plan: RegistryPlan) -> None:
    """Make the database `mlflow.db` and the folder `artifacts` there, unless they are complete."""
    done = folder / _FILLED
    if done.exists() and done.read_text() == repr(plan):
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri, uri)
    with tempfile.TemporaryDirectory() as templates:
        _save_templates(Path(templates))
        for index in range(plan.models):
            template = Path(templates) / str(index % _WIDTHS)
            _register(client, template, folder / "artifacts", plan, index)
    done.write_text(repr(plan))


def _register(
    client: MlflowClient, template: Path, artifacts: Path, plan: RegistryPlan, index: int
) -> None:
    """One model: each third has an alias, each tenth tags, each fifth a description."""
    name = plan.name(index)
    tags = {"team": "forecasts", "modelmux.timeout_s": "30"}
    client.create_registered_model(
        name,
        tags=tags if index % 10 == 0 else None,
        description=f"Forecasts number {index}." if index % 5 == 0 else None,
    )
    for number in range(1, plan.versions + 1):
        place = f"{_PLACE}/{name}/{number}"
        _copy(template, artifacts / place, _own_column(index))
        client.create_model_version(name, f"mlflow-artifacts:/{place}")
    if index % 3 == 0:
        client.set_registered_model_alias(name, "champion", str(max(1, plan.versions - 1)))


def _copy(template: Path, target: Path, column: str) -> None:
    """The template's files, its columns renamed."""
    shutil.copytree(template, target)
    for name in ("MLmodel", "input_example.json", "serving_input_example.json"):
        file = target / name
        if file.exists():
            file.write_text(file.read_text().replace(_COLUMN, column))


def _own_column(index: int) -> str:
    return f"feature-of-{index:04d}"


def _save_templates(folder: Path) -> None:
    """One small model per number of columns; every other one has an input example."""
    # MLflow warns of pickles on every save; these are ours.
    logging.getLogger("mlflow.sklearn").setLevel(logging.ERROR)
    for width in range(_WIDTHS):
        count = _FEWEST_COLUMNS + width
        names = [f"{_COLUMN}-{column}" for column in range(count)]
        example = pd.DataFrame([[1.0] * count], columns=names)
        mlflow.sklearn.save_model(
            # Fitted without names, so that it takes columns of any.
            LinearRegression().fit(np.eye(count), np.arange(count)),
            folder / str(width),
            signature=ModelSignature(
                inputs=Schema([ColSpec("double", name) for name in names]),
                outputs=Schema([ColSpec("double")]),
            ),
            input_example=example if width % 2 else None,
            pip_requirements=["scikit-learn"],
            serialization_format="cloudpickle",
        )
