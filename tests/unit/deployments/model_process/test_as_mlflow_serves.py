"""What saved models see of a request and what callers get, beside what MLflow's own server does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature, infer_signature
from mlflow.pyfunc import PythonModel
from mlflow.types.schema import AnyType, Array, ColSpec, Map, Object, Property, Schema, TensorSpec

from gateway.errors import InvalidModelOutput
from tests.support.saved_models import SavedModel

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*type hint"),
    pytest.mark.filterwarnings("ignore:Add type hints"),
]

Save = Callable[..., SavedModel]


class Answering(PythonModel):  # type: ignore[misc]
    """A custom model around a function of its input."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self._answer = answer

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return self._answer(model_input)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Saves a function as a model, or what the function of a flavor saves."""

    def saved(
        model: Any, inputs: list[Any] | None = None, outputs: list[Any] | None = None, **more: Any
    ) -> SavedModel:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        if inputs is not None:
            more["signature"] = ModelSignature(
                Schema(inputs), Schema(outputs) if outputs is not None else None
            )
        flavor = more.pop("flavor", None)
        if flavor is not None:
            flavor.save_model(model, str(folder), pip_requirements=[], **more)
        else:
            made = model if isinstance(model, PythonModel) else Answering(model)
            mlflow.pyfunc.save_model(str(folder), python_model=made, pip_requirements=[], **more)
        return SavedModel(folder)

    return saved


def told(frame: Any) -> list[str]:
    """What a model sees of its table: of each row its columns, their types and the value."""
    return [
        repr([(c, str(frame[c].dtype), None if pd.isna(frame[c].iloc[i]) else frame[c].iloc[i])
              for c in frame.columns])
        for i in range(len(frame))
    ]  # fmt: skip


TABLE = [
    ColSpec("string", "text"),
    ColSpec("string", "context", required=False),
    ColSpec("double", "weight", required=False),
    ColSpec("long", "count", required=False),
    ColSpec("datetime", "when", required=False),
    ColSpec(Array("string"), "tags", required=False),
    ColSpec("boolean", "flag", required=False),
]
TEXT = [ColSpec("string")]


@pytest.mark.parametrize(
    "rows",
    [
        [{"text": "a"}],
        [{"text": "a"}, {"text": "b"}],
        [{"text": "a", "context": "c"}],
        [{"text": "a", "context": "c"}, {"text": "b"}],
        [{"text": "a", "weight": 0.5}, {"text": "b"}],
        [{"text": "a", "count": 3}],
        [{"text": "a", "when": "2024-01-31T12:00:00"}, {"text": "b"}],
        [{"text": "a", "tags": ["x"]}],
        [{"text": "a", "flag": True}, {"text": "b", "flag": False}],
    ],
)
def test_a_table_is_the_one_that_mlflow_makes(save: Save, rows: Any) -> None:
    """Columns, their types and values are those of MLflow's own server; what no row has isn't
    there."""
    model = save(told, TABLE, TEXT)
    assert model.answer(rows) == model.by_mlflow(dataframe_records=rows)
