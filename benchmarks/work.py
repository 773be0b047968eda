"""The work that all contenders do: one scikit-learn model of four columns, and what to ask it.

A decision tree, because it gives a row the same value to the last digit whatever it is batched
with, and because neighbouring rows have different values: an answer given to the wrong caller, or
in the wrong order, is noticed.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, cast

import mlflow.sklearn
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from sklearn.tree import DecisionTreeRegressor

from examples.quiet import quiet_mlflow

MODEL = "flowers"
COLUMNS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
LIST_ROWS = 10_000

_SINGLE_ROWS = 16
_TRAINING_ROWS = 500
_SEED = 20240229

Record = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Rows to ask about, and the values that the model gives them."""

    records: Sequence[Record]
    values: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The model's folder, questions of one row each, and one of 10,000 rows."""

    model: Path
    rows: Sequence[Question]
    list: Question


def prepare_work(folder: Path) -> Work:
    """Train, save in MLflow's format to a folder there, and ask the model itself."""
    regressor = _trained()
    save_model(regressor, folder / "model")
    frame = pd.DataFrame(_measurements(LIST_ROWS), columns=list(COLUMNS))
    records = cast(list[Record], frame.to_dict("records"))
    values = [float(value) for value in regressor.predict(frame)]
    return Work(
        model=folder / "model",
        rows=[
            Question(records=[record], values=[value])
            for record, value in zip(records[:_SINGLE_ROWS], values, strict=False)
        ],
        list=Question(records=records, values=values),
    )


def save_model(regressor: Any, folder: Path) -> None:
    """In a format that every contender's environment can load."""
    shutil.rmtree(folder, ignore_errors=True)
    with quiet_mlflow():
        mlflow.sklearn.save_model(
            regressor,
            folder,
            signature=signature(),
            serialization_format="cloudpickle",
            pip_requirements=["mlflow", "scikit-learn"],
        )


def register_model(tracking_uri: str, name: str = MODEL) -> int:
    """Log the same model on a server and register it; the version's number."""
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    with quiet_mlflow(), redirect_stderr(StringIO()):  # what isn't logged is printed
        info = mlflow.sklearn.log_model(
            _trained(),
            name="model",
            signature=signature(),
            serialization_format="cloudpickle",
            pip_requirements=["mlflow", "scikit-learn"],
            registered_model_name=name,
        )
    return int(info.registered_model_version)


def signature() -> ModelSignature:
    """Four numbers in, one out."""
    return ModelSignature(
        inputs=Schema([ColSpec("double", name) for name in COLUMNS]),
        outputs=Schema([ColSpec("double", "yield")]),
    )


def _trained() -> DecisionTreeRegressor:
    generator = np.random.default_rng(_SEED)
    frame = pd.DataFrame(_measurements(_TRAINING_ROWS), columns=list(COLUMNS))
    # Rounded, so that every serializer writes the same digits.
    wanted = generator.uniform(0.0, 10.0, _TRAINING_ROWS).round(3)
    return DecisionTreeRegressor(random_state=_SEED).fit(frame, wanted)


def _measurements(rows: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    generator = np.random.default_rng(_SEED + 1)
    return generator.uniform((4.3, 2.0, 1.0, 0.1), (7.9, 4.4, 6.9, 2.5), (rows, 4)).round(2)
