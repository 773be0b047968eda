"""MLflow's signature of a model, as its MLmodel file has it, -> the types of `types.py`.

The only module here that knows MLflow's classes; it imports them where one is read, since commands
and processes that have to do with contracts don't all read one, and `import mlflow` takes seconds.
A signature that no JSON can speak raises `UntypableSignature`, when the model is looked at and not
when it is called.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from gateway.contract.agents import TASKS, agent_inputs, agent_outputs
from gateway.contract.hinted import opened, with_gaps
from gateway.contract.types import (
    ANYTHING,
    AnyValue,
    ArrayOf,
    Field,
    Kind,
    MapOf,
    ObjectOf,
    Param,
    Rows,
    Scalar,
    TensorOf,
    TextOrTexts,
    Type,
    depth,
)

if TYPE_CHECKING:
    from mlflow.types.schema import ParamSchema, ParamSpec, Schema, TensorSpec

# JSON itself is read to 200 levels (jiter's limit); a type must leave room for the body's form.
MAX_DEPTH = 64

_UNTYPED = (
    "Or set the tag modelmux.signature=none on the model or the version, and it is served without "
    "types."
)
_SIGNED = (
    "Log the model with one: mlflow.<flavor>.log_model(…, signature=mlflow.models.infer_signature("
    "model_input, model_output))"
)
HOW_TO_SIGN = f"{_SIGNED}, or with an input_example=, from which MLflow infers it. {_UNTYPED}"
UNSIGNED_EXAMPLE = (
    "The model has an input example but no signature, and none can be inferred from it. "
    f"{_SIGNED}. {_UNTYPED}"
)

TEXTS_IN_STRINGS = "texts_in_strings"
"""The member of a signature mapping that is true where columns of strings take lists of them."""

ROW_BY_ROW = "row_by_row"
"""The member of a signature mapping that is true where the model is called for each row."""

UNTYPED = "untyped"
"""The member of a signature mapping that is true where there is no signature, and need not be."""

UNTYPED_SIGNATURE = '{"untyped":true}'
"""The signature of models that are served without one, as JSON text."""

_TENSOR_KINDS = {"b", "i", "u", "f", "U", "S", "O", "M"}

_Read = TypeVar("_Read")


class UntypableSignature(ValueError):
    """The signature can't be served; `reason` says why in words meant for the model's owner."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature in our types. `outputs` is None where the signature has none."""

    inputs: Rows
    outputs: Rows | None
    params: tuple[Param, ...]
    from_type_hints: bool
    rows_are_dicts: bool = False
    row_by_row: bool = False
    untyped: bool = False
    task: str | None = None


def import_ahead() -> None:
    """Import what the first reading would: for a process that answers others meanwhile."""
    import mlflow.types.schema  # noqa: F401


def read_signature(signature: Mapping[str, Any] | None, *, from_type_hints: bool) -> Signature:
    """Read the `signature` mapping of an MLmodel file; raises `UntypableSignature`."""
    from mlflow.types.schema import ParamSchema, Schema

    if signature and signature.get(UNTYPED):
        return Signature(ANYTHING, None, (), from_type_hints=False, untyped=True)
    if not signature or not any(signature.get(k) for k in ("inputs", "outputs", "params")):
        raise UntypableSignature(f"The model has no signature. {HOW_TO_SIGN}")
    if not signature.get("inputs"):
        raise UntypableSignature(f"The model's signature has no inputs. {HOW_TO_SIGN}")
    inputs = _inputs(_read("inputs", signature, Schema.from_json))
    outputs = None
    if signature.get("outputs"):
        outputs = _rows("output", _read("outputs", signature, Schema.from_json))
    params: tuple[Param, ...] = ()
    if signature.get("params"):
        params = _params(_read("params", signature, ParamSchema.from_json))
    # MLflow writes the flag beside the signature; registries hand it over inside of it.
    hinted = from_type_hints or bool(signature.get("is_signature_from_type_hint"))
    task = signature.get("task")
    if task in TASKS and inputs.named and not inputs.tensors:
        inputs, outputs, hinted = agent_inputs(inputs, task), agent_outputs(outputs), False
    else:
        task = None
        if hinted:
            inputs = opened(inputs)
            outputs = None if outputs is None else with_gaps(opened(outputs))
    if signature.get(TEXTS_IN_STRINGS):
        inputs = _with_texts(inputs)
    return Signature(
        inputs,
        outputs,
        params,
        hinted,
        rows_are_dicts=bool(signature.get("rows_are_dicts")),
        row_by_row=bool(signature.get(ROW_BY_ROW)),
        task=task,
    )


def _with_texts(inputs: Rows) -> Rows:
    """Named columns of strings take lists of them, too."""
    if not inputs.named:
        return inputs
    fields = tuple(
        replace(f, type=TextOrTexts()) if f.type == Scalar("string") else f for f in inputs.fields
    )
    return replace(inputs, fields=fields)


def _read(section: str, signature: Mapping[str, Any], reader: Callable[[str], _Read]) -> _Read:
    try:
        return reader(signature[section])
    except Exception as error:  # what MLflow raises for a schema it can't read is not specified
        raise UntypableSignature(
            f"MLflow cannot read the {section} of the model's signature."
        ) from error


def _inputs(schema: Schema) -> Rows:
    rows = _rows("input", schema)
    if rows.named and tuple(schema.input_names()) != rows.labels:
        # MLflow 3.17: Schema.input_names() puts a position where a name is "" (or a late 0)
        raise UntypableSignature(
            "An input column has an empty name, and MLflow cannot hand such a column to the model."
        )
    if rows.tensors:
        _check_chunks(rows)
    elif all(not f.required and leaves_no_trace(f.type) for f in rows.fields):
        raise UntypableSignature(
            "All input columns are optional integers. MLflow takes no null for an integer, so a "
            "row without any of them cannot be handed to the model: make one column required."
        )
    return rows


def leaves_no_trace(type_: Type) -> bool:
    """Whether an optional column of the type takes no null in any form (MLflow 3.17)."""
    return isinstance(type_, Scalar) and type_.kind in ("integer", "long")


def _check_chunks(rows: Rows) -> None:
    firsts = {f.type.shape[0] for f in rows.fields if isinstance(f.type, TensorOf)} - {-1}
    if len(firsts) > 1:
        raise UntypableSignature("The input tensors have different fixed first dimensions.")


def _rows(what: str, schema: Schema) -> Rows:
    named = bool(schema.has_input_names())
    labels: tuple[Any, ...] = tuple(x.name if named else i for i, x in enumerate(schema.inputs))
    if not all(isinstance(label, str | int) for label in labels):
        raise UntypableSignature(f"An {what} column has a name that is no text.")
    names = [str(label) for label in labels]
    if len(set(names)) < len(names):
        raise UntypableSignature(f"Two {what} columns have the same name.")
    fields = tuple(_field(name, spec) for name, spec in zip(names, schema.inputs, strict=True))
    return Rows(fields, labels, named)


def _field(name: str, spec: Any) -> Field:
    from mlflow.types.schema import TensorSpec

    type_ = _tensor(name, spec) if isinstance(spec, TensorSpec) else _type(spec.type)
    if depth(type_) > MAX_DEPTH:
        raise UntypableSignature(f"The type of {name!r} is nested deeper than {MAX_DEPTH} levels.")
    # MLflow reads a missing flag of an Array, Object or Map column as None
    return Field(name, type_, required=spec.required is not False)


def _type(mlflow_type: Any) -> Type:
    from mlflow.types.schema import AnyType, Array, DataType, Map, Object

    match mlflow_type:
        case DataType():
            return Scalar(cast(Kind, mlflow_type.name))
        case Array():  # SparkMLVector is an Array of double
            return ArrayOf(_type(mlflow_type.dtype))
        case Map():
            return MapOf(_type(mlflow_type.value_type))
        case Object():
            return ObjectOf(
                tuple(Field(p.name, _type(p.dtype), p.required) for p in mlflow_type.properties)
            )
        case AnyType():
            return AnyValue()
    raise UntypableSignature(f"The type {type(mlflow_type).__name__} is not known.")


def _tensor(name: str, spec: TensorSpec) -> TensorOf:
    dtype, shape = spec.type, tuple(spec.shape)
    where = "The tensor" if spec.name is None else f"The tensor {name!r}"
    unit_missing = dtype.kind == "M" and np.datetime_data(dtype)[0] == "generic"
    if dtype.kind not in _TENSOR_KINDS or unit_missing or dtype == np.dtype(np.longdouble):
        raise UntypableSignature(f"{where} has the dtype {dtype.name}, which JSON cannot express.")
    if not shape:
        raise UntypableSignature(f"{where} has no dimension, so it has no rows.")
    if not all(type(n) is int and (n == -1 or n > 0) for n in shape):
        raise UntypableSignature(f"{where} has a dimension that is neither -1 nor positive.")
    if len(shape) > MAX_DEPTH:
        raise UntypableSignature(f"{where} has more than {MAX_DEPTH} dimensions.")
    return TensorOf(dtype, shape)


def _params(schema: ParamSchema) -> tuple[Param, ...]:
    return tuple(_param(spec) for spec in schema.params)


def _param(spec: ParamSpec) -> Param:
    type_ = _type(spec.dtype)
    if depth(type_) > MAX_DEPTH:
        raise UntypableSignature(f"The parameter {spec.name!r} is nested too deep.")
    if spec.shape is not None:
        if isinstance(type_, ObjectOf):
            raise UntypableSignature(
                f"The parameter {spec.name!r} is a list of objects, which MLflow refuses."
            )
        type_ = ArrayOf(type_)
    return Param(spec.name, type_, _json_default(spec.default))


def _json_default(value: Any) -> Any:
    """The default as a caller would write it; NaN and infinities, which JSON lacks, as text."""
    if isinstance(value, list):
        return [_json_default(item) for item in value]
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
