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


def _of_four(answer: Callable[[pd.DataFrame], Any], outputs: Schema | None = None) -> Any:
    return lambda rows, _: answer(rows), ModelSignature(_FOUR, outputs)


_ONE = Schema([ColSpec("double")])
_THIRD = np.float32(1 / 3)
ANSWERS: dict[str, tuple[Answer, ModelSignature]] = {
    "series": _of_four(lambda rows: rows["a"], _columns(("double", "a"))),
    "series without names": _of_four(lambda rows: pd.Series(rows["a"].to_numpy()), _ONE),
    "series undeclared": _of_four(lambda rows: rows["a"]),
    "array of a named column": _of_four(
        lambda rows: rows["a"].to_numpy(), _columns(("double", "target"))
    ),
    "array of two named columns": _of_four(
        lambda rows: rows[["a", "b"]].to_numpy(), _columns(("double", "p"), ("double", "q"))
    ),
    "array of a named tensor": _of_four(
        lambda rows: rows[["a", "b"]].to_numpy(),
        Schema([TensorSpec(np.dtype("float64"), (-1, 2), "out")]),
    ),
    "frame without declared names": _of_four(lambda rows: rows[["a"]], _ONE),
    "dict": _of_four(
        lambda rows: {"y": rows["a"].to_numpy(), "z": rows["b"].tolist()},
        _columns(("double", "y"), ("double", "z")),
    ),
    "dict undeclared": _of_four(lambda rows: {"y": rows["a"].to_numpy()}),
    "object": _of_four(lambda rows: {"y": 5, "t": "x"}),
    "number": _of_four(lambda rows: 0.5, _ONE),
    "texts with null": _of_four(
        lambda rows: pd.DataFrame({"s": [None] * len(rows), "a": rows["a"]}),
        _columns(("string", "s"), ("double", "a")),
    ),
    "narrow numbers": _of_four(
        lambda rows: rows["a"].to_numpy().astype("float32") / 3, Schema([ColSpec("float")])
    ),
    "narrow tensor": _of_four(
        lambda rows: rows[["a", "b"]].to_numpy().astype("float16") / 3,
        Schema([TensorSpec(np.dtype("float16"), (-1, 2))]),
    ),
    "narrow within objects": _of_four(lambda rows: [{"v": _THIRD, "w": [_THIRD]}] * len(rows)),
}
"""What models answer, in the ways that MLflow's server tells apart."""


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
    **{f"answer-{name}": each for name, each in ANSWERS.items()},
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
