"""JSON Schema (2020-12) of requests and answers, and the example of a request.

A body is accepted by the parser iff it is valid here, but for two things JSON Schema can't say:
nested lists of a tensor with free inner dimensions must not be ragged, and a tensor with a fixed
first dimension takes multiples of that many rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from math import prod
from typing import Any

from gateway.contract.body import wraps
from gateway.contract.text_formats import BASE64_PATTERN, DATETIME_PATTERN
from gateway.contract.types import (
    SCALAR_KINDS,
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
    float_bound,
    integer_bounds,
    may_be_bare,
)

JsonSchema = dict[str, Any]

_NOT_NULL = ["boolean", "number", "string", "array", "object"]
# The shortest text of the largest float32 reads as a slightly larger number.
_FLOAT32_WRITTEN_MAX = 3.4028235e38
_NAN_IS_NULL = "null stands for NaN and the infinities, which JSON lacks."
_FORMATS = {"integer": "int32", "long": "int64", "float": "float", "double": "double"}
_float_bound = lru_cache(float_bound)  # asked for every column; numpy takes its time

EXAMPLE_ELEMENTS_AT_MOST = 1_000
"""No example is made up that needs more elements of tensors: some numbers of a shape can ask for
gigabytes, and nobody reads an image as nested lists."""


def request_schema(
    inputs: Rows, params: tuple[Param, ...], *, record: JsonSchema | None = None
) -> JsonSchema:
    """Everything a request body may be.

    `record` is put wherever `record_schema(inputs)` belongs: a reference to it, where a document
    has it once.
    """
    row = record_schema(inputs) if record is None else record
    rows = {"title": "List of inputs", "type": "array", "items": row}
    if not wraps(inputs):
        return {"title": "Request", "anyOf": [{"title": "One input", **row}, rows]}
    wrapper = {
        "title": "Inputs with params",
        "type": "object",
        "properties": {"inputs": {"anyOf": [row, rows]}, "params": params_object(params)},
        "required": ["inputs"],
        "additionalProperties": False,
    }
    bare = {"title": "One input", **_bare(row, inputs.row)}
    return {"title": "Request", "anyOf": [bare, rows, wrapper]}


def _bare(schema: JsonSchema, row: Type) -> JsonSchema:
    """One input that is the whole body: an object with the member "inputs" is the wrapper."""
    free = isinstance(row, TensorOf) and row.dtype.kind == "O" and not row.inner
    if not free and not isinstance(row, MapOf | AnyValue):
        return schema
    return {
        **schema,
        "properties": {"inputs": False},
        "description": 'An object with the member "inputs" is read as inputs with params.',
    }


def record_schema(inputs: Rows) -> JsonSchema:
    """One input: an object where the columns have names, else the bare value or values."""
    return _schema(inputs.row, answer=False)


def params_object(params: Iterable[Param]) -> JsonSchema:
    """The object with the params; all may be absent."""
    properties = {param.name: _param(param) for param in params}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _param(param: Param) -> JsonSchema:
    schema = _schema(param.type, answer=False)
    return {**(_or_null(schema) if param.nullable else schema), "default": param.default}


def response_schema(outputs: Rows | None) -> JsonSchema:
    """Every answer: a list with one element per row of the request."""
    row: JsonSchema = {} if outputs is None else _schema(outputs.row, answer=True)
    return {
        "title": "Answer",
        "description": "One element per input, in the same order.",
        "type": "array",
        "items": row,
    }


def _schema(type_: Type, *, answer: bool) -> JsonSchema:
    match type_:
        case Scalar(kind):
            return _scalar(kind, answer)
        case ArrayOf(items):
            return {"type": "array", "items": _schema(items, answer=answer)}
        case MapOf(values):
            return {"type": "object", "additionalProperties": _schema(values, answer=answer)}
        case AnyValue():
            return {}
        case TupleOf(items):
            members = [_member(Field("", item), answer=answer) for item in items]
            size = {"minItems": len(items), "maxItems": len(items)}
            return {"type": "array", "prefixItems": members, **size}
        case ObjectOf(fields, extras):
            return _object(fields, answer, closed=extras == "refused")
        case TensorOf():
            return _tensor(type_, answer)


def _member(field: Field, *, answer: bool) -> JsonSchema:
    """A column, a property or a whole row: null exactly where it is optional."""
    schema = _schema(field.type, answer=answer)
    if not field.required:
        return _or_null(schema)
    if isinstance(field.type, AnyValue) and not answer:
        return {"type": list(_NOT_NULL)}
    return schema


def _or_null(schema: JsonSchema) -> JsonSchema:
    types = schema.get("type")
    if types is None or "null" in types:
        return schema
    return {**schema, "type": [types, "null"]}


def _object(fields: tuple[Field, ...], answer: bool, *, closed: bool) -> JsonSchema:
    schema: JsonSchema = {
        "type": "object",
        "properties": {field.name: _member(field, answer=answer) for field in fields},
    }
    if closed:
        schema["additionalProperties"] = False
    required = [field.name for field in fields if field.required]
    return {**schema, "required": required} if required else schema


def _tensor(type_: TensorOf, answer: bool) -> JsonSchema:
    element = schema = _dtype(type_, answer)
    for size in reversed(type_.inner):
        schema = {"type": "array", "items": schema, **_length(size, answer)}
    return schema if answer or not may_be_bare(type_) else {"anyOf": [schema, element]}


def _length(size: int, answer: bool) -> JsonSchema:
    if size == -1:
        return {} if answer else {"minItems": 1}
    return {"minItems": size, "maxItems": size}


def _dtype(type_: TensorOf, answer: bool) -> JsonSchema:
    match type_.dtype.kind:
        case "i" | "u":
            return _integer(type_.dtype.name)
        case "f":
            return _float(type_.dtype.name, answer)
        case "O":
            return {}
        case kind:
            return _scalar(SCALAR_KINDS[kind], answer)


def _scalar(kind: str, answer: bool) -> JsonSchema:
    match kind:
        case "boolean":
            return {"type": "boolean"}
        case "string":
            return {"type": "string"}
        case "binary":
            return {"type": "string", "contentEncoding": "base64", "pattern": BASE64_PATTERN}
        case "datetime":
            offset = "No offset." if answer else "UTC, unless there is an offset."
            about = f"ISO 8601 date and time. {offset}"
            return {"type": "string", "description": about, "pattern": DATETIME_PATTERN}
        case "integer" | "long":
            return {**_integer(kind), "format": _FORMATS[kind]}
        case _:
            return {**_float(kind, answer), "format": _FORMATS[kind]}


def _integer(kind: str) -> JsonSchema:
    low, high = integer_bounds(kind)
    return {"type": "integer", "minimum": low, "maximum": high}


def _float(kind: str, answer: bool) -> JsonSchema:
    bound = _float_bound(kind)
    if not answer:
        return {"type": "number", "minimum": -bound, "maximum": bound}
    bound = max(bound, _FLOAT32_WRITTEN_MAX) if kind in ("float", "float32") else bound
    limits = {"minimum": -bound, "maximum": bound}
    return {"type": ["number", "null"], **limits, "description": _NAN_IS_NULL}


def example_body(inputs: Rows) -> Any:
    """A request body with the fewest rows and without the optional columns.

    None where its tensors would have more than `EXAMPLE_ELEMENTS_AT_MOST` elements.
    """
    elements = sum(_elements(field.type) for field in inputs.fields)
    if elements * (inputs.chunk or 1) > EXAMPLE_ELEMENTS_AT_MOST:
        return None
    row = _example(inputs.row)
    if inputs.named and inputs.chunk in (None, 1):
        return row
    return [row] * (inputs.chunk or 1)


def example_value(type_: Type) -> Any:
    """One value of a column or a tensor; None where it would have too many elements."""
    return None if _elements(type_) > EXAMPLE_ELEMENTS_AT_MOST else _example(type_)


def _elements(type_: Type) -> int:
    """How many elements an example of a row has; of what isn't a tensor: as good as none."""
    if not isinstance(type_, TensorOf):
        return 0
    return prod(max(size, 1) for size in type_.inner)


def _example(type_: Type) -> Any:
    match type_:
        case ArrayOf(items):
            return [_example(items)]
        case MapOf(values):
            return {"key": _example(values)}
        case TupleOf(items):
            return [_example(item) for item in items]
        case ObjectOf(fields):
            return {field.name: _example(field.type) for field in fields if field.required}
        case TensorOf():
            return _example_tensor(type_)
        case Scalar(kind):
            return _EXAMPLES[kind]
        case AnyValue():
            return "text"


def _example_tensor(type_: TensorOf) -> Any:
    value = _EXAMPLES[SCALAR_KINDS.get(type_.dtype.kind, "string")]
    for size in reversed(type_.inner):
        value = [value] * max(size, 1)
    return value


_EXAMPLES: dict[str, Any] = {
    "boolean": False,
    "integer": 1,
    "long": 1,
    "float": 1.0,
    "double": 1.0,
    "string": "text",
    "binary": "YQ==",
    "datetime": "2024-01-31T12:00:00",
}
