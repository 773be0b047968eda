"""Small models of each sort that MLflow's scoring server tells apart, saved to a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types.schema import (
    Array,
    ColSpec,
    DataType,
    Object,
    ParamSchema,
    ParamSpec,
    Property,
    Schema,
    TensorSpec,
)

Answer = Callable[[Any, dict[str, Any]], Any]


class Scored(mlflow.pyfunc.PythonModel):
    """A model that answers by a function."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        return self._answer(model_input, params or {})


class Hinted(mlflow.pyfunc.PythonModel):
    """A model with type hints."""

    def predict(self, model_input: list[str], params: Any = None) -> list[str]:
        return [text.upper() for text in model_input]


def _columns(*columns: tuple[Any, str]) -> Schema:
    return Schema([ColSpec(kind, name) for kind, name in columns])


_FOUR = _columns(*(("double", name) for name in "abcd"))
_TYPES = Schema(
    [
        ColSpec("long", "whole"),
        ColSpec("boolean", "flag"),
        ColSpec("string", "zone"),
        ColSpec("datetime", "at"),
        ColSpec("double", "may", required=False),
    ]
)
_TEXTS = Schema([ColSpec("string")])
_NESTED = Schema(
    [
        ColSpec(Array(DataType.double), "points"),
        ColSpec(Object([Property("city", DataType.string)]), "place"),
    ]
)


def _types(rows: pd.DataFrame, params: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "whole": rows["whole"] * 2,
            "flag": ~rows["flag"],
            "zone": rows["zone"] + "!",
            "at": rows["at"],
            "had": rows["may"].notna(),
        }
    )


_MODELS: dict[str, tuple[Answer, ModelSignature]] = {
    "table": (
        lambda rows, _: rows.sum(axis=1).to_numpy(),
        ModelSignature(_FOUR, Schema([ColSpec("double")])),
    ),
    "frame": (
        lambda rows, _: rows[["a", "b"]] * 2,
        ModelSignature(_FOUR, _columns(("double", "a"), ("double", "b"))),
    ),
    "types": (
        _types,
        ModelSignature(
            _TYPES,
            _columns(
                ("long", "whole"),
                ("boolean", "flag"),
                ("string", "zone"),
                ("datetime", "at"),
                ("boolean", "had"),
            ),
        ),
    ),
    "tensor": (
        lambda array, _: array * 2,
        ModelSignature(
            Schema([TensorSpec(np.dtype("float32"), (-1, 3))]),
            Schema([TensorSpec(np.dtype("float32"), (-1, 3))]),
        ),
    ),
    "tensors": (
        lambda arrays, _: {"sum": arrays["x"] + arrays["y"]},
        ModelSignature(
            Schema(
                [
                    TensorSpec(np.dtype("float64"), (-1, 2), "x"),
                    TensorSpec(np.dtype("float64"), (-1, 2), "y"),
                ]
            ),
            Schema([TensorSpec(np.dtype("float64"), (-1, 2), "sum")]),
        ),
    ),
    "texts": (
        lambda rows, params: [f"{text}{params['mark']}" for text in rows.iloc[:, 0]],
        ModelSignature(_TEXTS, _TEXTS, ParamSchema([ParamSpec("mark", "string", "?")])),
    ),
    "prompt": (
        lambda rows, _: [f"{text}…" for text in rows["prompt"]],
        ModelSignature(_columns(("string", "prompt")), _TEXTS),
    ),
    "nested": (
        lambda rows, _: [
            f"{sum(p)} {q['city']}" for p, q in zip(rows["points"], rows["place"], strict=True)
        ],
        ModelSignature(_NESTED, _TEXTS),
    ),
    "broken": (lambda rows, _: 1 / 0, ModelSignature(_FOUR, Schema([ColSpec("double")]))),
}


def save_all(folder: Path) -> dict[str, Path]:
    """The folders of all of them, by name."""
    folders = {}
    for name, (answer, signature) in _MODELS.items():
        folders[name] = folder / name
        mlflow.pyfunc.save_model(
            folders[name], python_model=Scored(answer), signature=signature, pip_requirements=[]
        )
    folders["hinted"] = folder / "hinted"
    mlflow.pyfunc.save_model(folders["hinted"], python_model=Hinted(), pip_requirements=[])
    return folders
