"""Signatures for the tests, written by hand or drawn by hypothesis, and values of them."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import numpy as np
import pydantic
from hypothesis import strategies as st
from mlflow.models.signature import ModelSignature
from mlflow.types import schema as mlflow_schema
from mlflow.types.schema import (
    ColSpec,
    DataType,
    ParamSchema,
    ParamSpec,
    Property,
    Schema,
    TensorSpec,
)

from deployments.model_process.input import model_input as replica_input
from gateway.contract import Contract, Frame
from gateway.contract.types import (
    FLOAT32_MAX,
    FLOAT64_MAX,
    AnyValue,
    ArrayOf,
    Field,
    MapOf,
    ObjectOf,
    Param,
    Rows,
    Scalar,
    TensorOf,
    TupleOf,
    Type,
    integer_bounds,
)

ODD_NAMES = [
    "sepal length (cm)", "a.b", 'quo"te', "straße", "_x", "__class__", "model_config", "schema",
    "json", "params", "a/b", "a~b", "~1", "0", "\n", "self",
]  # fmt: skip


def contract(
    inputs: list[Any],
    outputs: list[Any] | None = None,
    params: list[ParamSpec] | None = None,
    *,
    hints: bool = False,
) -> Contract:
    signature = ModelSignature(
        Schema(inputs),
        Schema(outputs) if outputs else None,
        ParamSchema(params) if params else None,
    )
    return Contract.from_signature(signature.to_dict(), from_type_hints=hints)


def column(type_: Any, name: str | None = None, required: bool = True) -> ColSpec:
    return ColSpec(type_, name, required)


def tensor(dtype: str, shape: tuple[int, ...], name: str | None = None) -> TensorSpec:
    return TensorSpec(np.dtype(dtype), shape, name)


def body(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False).encode()


def model_input(frame: Frame) -> Any:
    """What a replica makes of a frame."""
    return replica_input(frame.layout, frame.names, frame.columns)


def as_output(frame: Frame) -> Any:
    """What the model that returns its input sends back."""
    if frame.layout in ("tensor", "values"):
        return ("values", frame.columns[0])
    return ("columns", [str(name) for name in frame.names], list(frame.columns))


# --- types of ours -> MLflow's, and Python's hints --------------------------------------------


def to_mlflow(type_: Type) -> Any:
    match type_:
        case Scalar(kind):
            return DataType[kind]
        case ArrayOf(items):
            return mlflow_schema.Array(to_mlflow(items))
        case MapOf(values):
            return mlflow_schema.Map(to_mlflow(values))
        case ObjectOf(fields):
            return mlflow_schema.Object(
                [Property(f.name, to_mlflow(f.type), f.required) for f in fields]
            )
    return mlflow_schema.AnyType()


def to_schema(rows: Rows) -> Schema:
    specs = []
    for field in rows.fields:
        name = field.name if rows.named else None
        if isinstance(field.type, TensorOf):
            specs.append(TensorSpec(field.type.dtype, field.type.shape, name))
        else:
            specs.append(ColSpec(to_mlflow(field.type), name, field.required))
    return Schema(specs)


def to_hint(type_: Type) -> Any:
    kinds = {"boolean": bool, "integer": int, "long": int, "float": float, "double": float,
             "string": str, "binary": bytes, "datetime": dt.datetime}  # fmt: skip
    match type_:
        case Scalar(kind):
            return kinds[kind]
        case ArrayOf(items):
            return list[to_hint(items)]  # type: ignore[misc]
        case MapOf(values):
            return dict[str, to_hint(values)]  # type: ignore[misc]
        case ObjectOf(fields):
            members: dict[str, Any] = {
                f.name: (to_hint(f.type), ...) if f.required else (to_hint(f.type) | None, None)
                for f in fields
            }
            return pydantic.create_model("Hinted", __config__={"extra": "forbid"}, **members)
    return Any


# --- strategies -----------------------------------------------------------------------------------

KINDS = ("boolean", "integer", "long", "float", "double", "string", "binary", "datetime")
DTYPES = ("bool", "int8", "int32", "int64", "uint8", "uint64", "float16", "float32", "float64",
          "str", "bytes", "object", "datetime64[ns]", "datetime64[s]")  # fmt: skip

scalars = st.sampled_from([Scalar(kind) for kind in KINDS])


def names(plain: bool = False) -> st.SearchStrategy[str]:
    odd = st.sampled_from(["inputs", *ODD_NAMES]) | st.text(min_size=1, max_size=5)
    simple = st.sampled_from(["a", "b", "c", "d"])
    return simple if plain else simple | odd


def fields(of: st.SearchStrategy[Type], plain: bool) -> st.SearchStrategy[tuple[Field, ...]]:
    one = st.builds(Field, names(plain), of, st.booleans())
    several = st.lists(one, min_size=1, max_size=3, unique_by=lambda f: f.name)
    # MLflow sorts the properties of an object
    return several.map(lambda found: tuple(sorted(found, key=lambda f: f.name)))


def types(plain: bool = False) -> st.SearchStrategy[Type]:
    def nest(inner: st.SearchStrategy[Type]) -> st.SearchStrategy[Type]:
        return inner.map(ArrayOf) | inner.map(MapOf) | fields(inner, plain).map(ObjectOf)

    return st.recursive(scalars | st.just(AnyValue()), nest, max_leaves=4)


def tensors(free_inside: bool = True) -> st.SearchStrategy[TensorOf]:
    inner = st.lists(st.sampled_from([-1, 1, 2, 3] if free_inside else [1, 2, 3]), max_size=2)
    return st.builds(
        lambda dtype, sizes: TensorOf(np.dtype(dtype), (-1, *sizes)), st.sampled_from(DTYPES), inner
    )


def _unnamed(several: list[Type]) -> Rows:
    return Rows(
        tuple(Field(str(i), t) for i, t in enumerate(several)), tuple(range(len(several))), False
    )


def _named(found: tuple[Field, ...]) -> Rows:
    return Rows(found, tuple(f.name for f in found), True)


def tables() -> st.SearchStrategy[Rows]:
    def carries_rows(rows: Rows) -> bool:
        whole = (Scalar("integer"), Scalar("long"))
        return any(f.required or f.type not in whole for f in rows.fields)

    named = fields(types(), plain=False).map(_named).filter(carries_rows)
    return named | st.lists(types(), min_size=1, max_size=3).map(_unnamed)


def tensor_rows() -> st.SearchStrategy[Rows]:
    one = st.builds(Field, names(), tensors())
    several = st.lists(one, min_size=1, max_size=2, unique_by=lambda f: f.name)
    return several.map(lambda found: _named(tuple(found))) | tensors().map(lambda t: _unnamed([t]))


def of_rows(rows: Rows, params: tuple[Param, ...] = (), hints: bool = False) -> Contract:
    """A contract whose outputs are its inputs."""
    return Contract(inputs=rows, outputs=rows, params=params, from_type_hints=hints,
                    accepted=rows, accepted_params=params, promised=rows)  # fmt: skip


def contracts() -> st.SearchStrategy[Contract]:
    params = st.lists(
        st.builds(Param, names(), scalars.filter(lambda s: s.kind != "binary"), st.just(None)),
        max_size=2, unique_by=lambda p: p.name,
    ).map(tuple)  # fmt: skip
    return st.builds(of_rows, tables() | tensor_rows(), params)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=3)
    | st.floats(allow_nan=False, allow_infinity=False) | st.just(1e39),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=3) | st.just("inputs"), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def _whole(kind: str) -> st.SearchStrategy[Any]:
    low, high = integer_bounds(kind)
    near = st.integers(max(low, -1000), min(high, 1000))
    return st.integers(low, high) | st.sampled_from([low, high]) | near.map(float)


def _moments() -> st.SearchStrategy[str]:
    zones = st.sampled_from(["", "Z", "+02:00", "-23:59"])
    times = st.datetimes(dt.datetime(1678, 1, 1), dt.datetime(2261, 12, 31, 23, 59, 59))
    dates = st.dates(dt.date(1678, 1, 1), dt.date(2261, 12, 31))
    return st.builds(lambda t, z: t.isoformat() + z, times, zones) | dates.map(dt.date.isoformat)


SCALAR_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "integer": _whole("integer"),
    "long": _whole("long"),
    "float": st.floats(width=32, allow_nan=False, allow_infinity=False)
    | st.sampled_from([FLOAT32_MAX, -FLOAT32_MAX, int(FLOAT32_MAX), 7]),
    "double": st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([FLOAT64_MAX, int(FLOAT64_MAX), 7]),
    "string": st.text(max_size=4),
    # numpy's bytes lose NULs at their end, in MLflow's enforcement of Array(binary) too
    "binary": st.sampled_from(["", "YQ==", "YWI=", "YWJj", "/+8=", "YWJjZA=="]),
    "datetime": _moments(),
}


def values(type_: Type) -> st.SearchStrategy[Any]:
    """Valid JSON values of the type."""
    match type_:
        case Scalar(kind):
            return SCALAR_VALUES[kind]
        case ArrayOf(items):
            return st.lists(values(items), max_size=3)
        case MapOf(inner):
            return st.dictionaries(st.text(max_size=3), values(inner), max_size=2)
        case AnyValue():
            return json_values.filter(lambda value: value is not None)
        case TupleOf(items):
            return st.tuples(*map(values, items)).map(list)
        case ObjectOf(members):
            required = {f.name: values(f.type) for f in members if f.required}
            optional = {f.name: st.none() | values(f.type) for f in members if not f.required}
            return st.fixed_dictionaries(required, optional=optional)
        case TensorOf():
            return _tensor_values(type_)


def _tensor_values(type_: TensorOf) -> st.SearchStrategy[Any]:
    kinds = {"b": "boolean", "U": "string", "S": "binary", "M": "datetime"}
    match type_.dtype.kind:
        case "i" | "u":
            element = _whole(type_.dtype.name)
        case "f":
            bound = float(np.finfo(type_.dtype).max)
            element = st.floats(-bound, bound, width=64) | st.just(bound)
        case "O":
            element = json_values.filter(lambda value: value is not None)
        case kind:
            element = SCALAR_VALUES[kinds[kind]]
    for size in reversed(type_.inner):
        element = st.lists(element, min_size=max(size, 1), max_size=size if size > 0 else 2)
    return element


@st.composite
def bodies(draw: st.DrawFn, of: Contract) -> Any:
    """Valid request bodies of all the forms the contract knows."""
    row = values(of.accepted.row)
    rows = draw(row | st.lists(row, max_size=3))
    if any(f.name == "inputs" for f in getattr(of.accepted.row, "fields", ())):
        return rows
    wrapped = isinstance(rows, dict) and "inputs" in rows
    if not wrapped and draw(st.booleans()):
        return rows
    params = st.fixed_dictionaries({}, optional={p.name: values(p.type) for p in of.params})
    return {"inputs": rows, **({"params": draw(params)} if draw(st.booleans()) else {})}


@st.composite
def mutated(draw: st.DrawFn, value: Any) -> Any:
    """The value with something somewhere replaced, added or taken away."""
    if isinstance(value, list | dict) and value and draw(st.integers(0, 4)):
        keys = list(range(len(value))) if isinstance(value, list) else list(value)
        key = draw(st.sampled_from(keys))
        copy = value.copy()
        if draw(st.integers(0, 6)):
            copy[key] = draw(mutated(value[key]))
        elif isinstance(copy, dict) and draw(st.booleans()):
            copy[draw(st.text(max_size=2) | st.just("inputs"))] = draw(json_values)
        else:
            del copy[key]
        return copy
    return draw(
        json_values | st.sampled_from([[], {}, [value], {"inputs": value}, None, "YQ=", 0.5])
    )
