"""The models of the contract suite: small, real pyfunc models, one per kind of signature."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pydantic
from mlflow.pyfunc import PythonModel
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Array, ColSpec, DataType, Map, Object, Property

from tests.support.registering import client, columns, log, register


class Order(pydantic.BaseModel):
    """What the pydantic-hinted model takes."""

    item: str
    count: int
    note: str | None = None


class HintedText(PythonModel):  # type: ignore[misc]
    """Takes plain strings, by its type hint."""

    def predict(self, model_input: list[str], params: Any = None) -> list[str]:
        return [text.upper() for text in model_input]


class HintedOrders(PythonModel):  # type: ignore[misc]
    """Takes pydantic objects, by its type hint."""

    def predict(self, model_input: list[Order], params: Any = None) -> list[str]:
        return [f"{order.count} x {order.item}{order.note or ''}" for order in model_input]


def _echo(rows: pd.DataFrame, params: Mapping[str, Any]) -> Any:
    return rows


def _describe(rows: pd.DataFrame, params: Mapping[str, Any]) -> Any:
    texts = [
        f"{row.get('text')}|{row.get('count')}"
        if not pd.isna(row.get("count", np.nan))
        else f"{row.get('text')}|-"
        for row in rows.to_dict("records")
    ]
    return pd.DataFrame({"described": [params["prefix"] * params["times"] + t for t in texts]})


def _fail(rows: pd.DataFrame, params: Mapping[str, Any]) -> Any:
    raise RuntimeError("secret internal text")


def _forecast(rows: pd.DataFrame, params: Mapping[str, Any]) -> Any:
    return pd.DataFrame({"x": np.arange(rows["x"].iloc[0])})


def _wrong_type(rows: pd.DataFrame, params: Mapping[str, Any]) -> Any:
    return pd.DataFrame({"x": ["text"] * len(rows)})


def _no_form(rows: pd.DataFrame, params: Mapping[str, Any]) -> Any:
    return [object() for _ in range(len(rows))]


def _not_finite(rows: pd.DataFrame, params: Mapping[str, Any]) -> Any:
    return pd.DataFrame({"x": np.resize([np.nan, np.inf, 1.0], len(rows))})


def _sum_rows(tensor: Any, params: Mapping[str, Any]) -> Any:
    if isinstance(tensor, dict):
        return tensor["a"].sum(axis=1) + tensor["b"]
    return tensor.reshape(len(tensor), -1).sum(axis=1)


def _slow(rows: pd.DataFrame, params: Mapping[str, Any]) -> Any:
    time.sleep(3.0)
    return rows


def _load_slowly() -> None:
    time.sleep(4.0)


def _break_on_load() -> None:
    raise RuntimeError("secret: can't be loaded")


TYPED = "typed"
DESCRIBED = "described"
ODD_NAME = "Größe & Höhe #1?"
ODD_COLUMNS = "odd columns"

MADE_TO_FAIL = (
    "failing", "wrong type", "no form", "unloadable", "slow", "slow to load",
)  # fmt: skip
"""Models whose predictions are a 5xx by design."""

_NESTED = Object(
    [
        Property("id", DataType.integer),
        Property("tags", Array(DataType.string), required=False),
        Property("by_name", Map(DataType.double), required=False),
    ]
)

ALL_TYPES = Schema(
    [
        ColSpec("boolean", "boolean", required=False),
        ColSpec("integer", "integer", required=False),
        ColSpec("long", "long", required=False),
        ColSpec("float", "float", required=False),
        ColSpec("double", "double", required=False),
        ColSpec("string", "string"),
        ColSpec("binary", "binary", required=False),
        ColSpec("datetime", "datetime", required=False),
        ColSpec(Array(DataType.long), "array", required=False),
        ColSpec(_NESTED, "object", required=False),
        ColSpec(Map(DataType.string), "map", required=False),
    ]
)

ODD_COLUMN_NAMES = (
    "sepal length (cm)", "a.b", 'quo"te', "Ünï", "_x", "model_config", "schema", "json", "class",
)  # fmt: skip


def register_all(uri: str) -> frozenset[str]:
    """Register every model of the suite, once; their names."""
    others = _names(uri)
    number = columns(("x", "double"))
    register(uri, TYPED, _echo, ALL_TYPES, ALL_TYPES)
    register(
        uri,
        DESCRIBED,
        _describe,
        columns(("text", "string"), ("count", "long", False)),
        columns(("described", "string")),
        params=ParamSchema([ParamSpec("prefix", "string", ">"), ParamSpec("times", "long", 1)]),
        input_example=None,
    )
    register(uri, ODD_NAME, _echo, number, number)
    odd = columns(*((name, "double") for name in ODD_COLUMN_NAMES))
    register(uri, ODD_COLUMNS, _echo, odd, odd)
    register(
        uri, "column inputs", _echo, columns(("inputs", "string")), columns(("inputs", "string"))
    )
    register(uri, "failing", _fail, number, number)
    register(uri, "forecast", _forecast, number, number)
    register(uri, "wrong type", _wrong_type, number, number)
    register(uri, "no form", _no_form, number, number)
    register(uri, "not finite", _not_finite, number, number)
    register(uri, "unloadable", _echo, number, number, on_load=_break_on_load)
    register(uri, "without signature", _echo, None)
    register(uri, "slow", _slow, number, number)
    register(uri, "slow to load", _echo, number, number, on_load=_load_slowly)
    for name, timeout_s in (("slow", "1.5"), ("slow to load", "2")):
        client(uri).set_registered_model_tag(name, "modelmux.timeout_s", timeout_s)
    log(uri, "hinted text", HintedText())
    log(uri, "hinted orders", HintedOrders())
    _register_tensors(uri)
    _register_versions(uri)
    return _names(uri) - others


def _names(uri: str) -> frozenset[str]:
    return frozenset(model.name for model in client(uri).search_registered_models())


def _register_tensors(uri: str) -> None:
    output = Schema([TensorSpec(np.dtype("float64"), (-1,))])
    unnamed = Schema([TensorSpec(np.dtype("float64"), (-1, 2, 2))])
    named = Schema(
        [TensorSpec(np.dtype("float64"), (-1, 2), "a"), TensorSpec(np.dtype("int64"), (-1,), "b")]
    )
    register(uri, "tensor", _sum_rows, unnamed, output)
    register(uri, "named tensors", _sum_rows, named, output)
    bare = Schema([ColSpec(Array(DataType.double))])
    register(uri, "bare array", _echo, bare, bare)


def _register_versions(uri: str) -> None:
    """Versions 1 and 2 keep one contract, 3 breaks it, 4 has no signature."""
    number = columns(("x", "double"))
    register(uri, "versions", _echo, number, number)
    register(uri, "versions", _echo, columns(("x", "double"), ("y", "string", False)), number)
    register(uri, "versions", _echo, columns(("other", "double")), number)
    log(uri, "versions", _Unsigned())
    client(uri).set_registered_model_alias("versions", "champion", "1")
    client(uri).set_registered_model_alias("versions", "second", "2")
    for alias in ("größe", "日本"):
        client(uri).set_registered_model_alias("versions", alias, "1")


class _Unsigned(PythonModel):  # type: ignore[misc]
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        return model_input
