"""JSON Schema (2020-12) of requests and answers, and the example of a request.

A body is accepted by the parser iff it is valid here, but for three things. Two JSON Schema can't
say: nested lists of a tensor with free inner dimensions must not be ragged, and a tensor with a
fixed first dimension takes multiples of that many rows. The third no number in a double's range can
show: that there is a largest one is what generators of clients break at, and it isn't said.

Only what generators of clients understand is used: no boolean schemas, no types that may be
anything but null (docs/decisions/0048).
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
    TextOrTexts,
    TupleOf,
    Type,
    float_bound,
    integer_bounds,
    may_be_bare,
)

JsonSchema = dict[str, Any]

_NOT_NULL: JsonSchema = {"not": {"type": "null"}}
# The shortest text of the largest float32 reads as a slightly larger number.
_FLOAT32_WRITTEN_MAX = 3.4028235e38
ANSWER = (
    "One element per input, in the same order; of a model that answers with another number of them "
    "(a forecast, an embedding of each token), as many as it gave. A later version may add members "
    "to its objects: leave those that you don't know aside."
)
_NAN_IS_NULL = "null stands for NaN and the infinities, which JSON lacks."
_FORMATS = {"integer": "int32", "long": "int64", "float": "float", "double": "double"}
_DOUBLES = frozenset({"double", "float64"})
_float_bound = lru_cache(float_bound)  # asked for every column; numpy takes its time

EXAMPLE_ELEMENTS_AT_MOST = 1_000
"""No example is made up that needs more elements of tensors: some numbers of a shape can ask for
gigabytes, and nobody reads an image as nested lists."""


def request_schema(inputs: Rows, params: tuple[Param, ...]) -> JsonSchema:
    """Everything a request body may be, as one schema that stands alone."""
    row = record_schema(inputs)
    wrapper = wrapper_schema(row, params_object(params))
    one, *others = request_forms(inputs, row=row, wrapper=wrapper)
    titles = ("One input", "List of inputs", "Inputs with params")
    forms = [{"title": title, **form} for title, form in zip(titles, (one, *others), strict=False)]
    return {"title": "Request", "anyOf": forms}


def request_forms(inputs: Rows, *, row: JsonSchema, wrapper: JsonSchema) -> list[JsonSchema]:
    """The forms of a body: one input, a list of them, and inputs with params where the model takes
    these; made of the schemas of one input and of the wrapper, or of references to them."""
    rows = {"type": "array", "items": row}
    return [_bare(row, inputs.row), rows, wrapper] if wraps(inputs) else [row, rows]


def wrapper_schema(row: JsonSchema, params: JsonSchema) -> JsonSchema:
    """Inputs with params, made of the schemas of one input and of the params, or of references."""
    inputs = {"anyOf": [row, {"type": "array", "items": row}]}
    return {
        "type": "object",
        "properties": {"inputs": inputs, "params": params},
        "required": ["inputs"],
        "additionalProperties": False,
    }


def _bare(schema: JsonSchema, row: Type) -> JsonSchema:
    """One input that is the whole body: an object with the member "inputs" is the wrapper."""
    free = isinstance(row, TensorOf) and row.dtype.kind == "O" and not row.inner
    if not free and not isinstance(row, MapOf | AnyValue):
        return schema
    wrapper: JsonSchema = {"inputs": {}}
    return {
        **schema,
        "allOf": [{"not": {"type": "object", "properties": wrapper, "required": ["inputs"]}}],
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
    """Every answer: a list, with one element per row of the request where the model answers so.

    Its objects are open: a later version may answer with more members, and what an answer was
    promised to be it still is (docs/decisions/0044-answers-may-grow.md).
    """
    return {
        "title": "Answer",
        "description": ANSWER,
        "type": "array",
        "items": answer_schema(outputs),
    }


def answer_schema(outputs: Rows | None) -> JsonSchema:
    """One element of an answer."""
    return {} if outputs is None else _schema(outputs.row, answer=True)


def _schema(type_: Type, *, answer: bool) -> JsonSchema:
    match type_:
        case Scalar(kind):
            return _scalar(kind, answer)
        case TextOrTexts():
            return {"type": ["string", "array"], "items": {"type": "string"}, "minItems": 1}
        case ArrayOf(items, gaps):
            return {"type": "array", "items": _element(items, answer, gaps)}
        case MapOf(values, gaps):
            return {"type": "object", "additionalProperties": _element(values, answer, gaps)}
        case AnyValue():
            return {}
        case TupleOf(items):
            members = [_member(Field("", item), answer=answer) for item in items]
            size = {"minItems": len(items), "maxItems": len(items)}
            # `items` says nothing here, and is asked for wherever there is an array.
            return {"type": "array", "prefixItems": members, "items": {}, **size}
        case ObjectOf(fields, extras):
            return _object(fields, answer, closed=extras == "refused")
        case TensorOf():
            return _tensor(type_, answer)


def _element(type_: Type, answer: bool, gaps: bool) -> JsonSchema:
    schema = _schema(type_, answer=answer)
    return _or_null(schema) if gaps else schema


def _member(field: Field, *, answer: bool) -> JsonSchema:
    """A column, a property or a whole row: null exactly where it is optional."""
    schema = _schema(field.type, answer=answer)
    if not field.required:
        return _or_null(schema)
    if isinstance(field.type, AnyValue) and not answer:
        return dict(_NOT_NULL)
    return schema


def _or_null(schema: JsonSchema) -> JsonSchema:
    types = schema.get("type")
    if types is None or "null" in types:
        return schema
    several = types if isinstance(types, list) else [types]
    return {**schema, "type": [*several, "null"]}


def _object(fields: tuple[Field, ...], answer: bool, *, closed: bool) -> JsonSchema:
    schema: JsonSchema = {
        "type": "object",
        "properties": {field.name: _member(field, answer=answer) for field in fields},
    }
    if closed and not answer:
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
    limits = _limits(kind, answer)
    if not answer:
        return {"type": "number", **limits}
    return {"type": ["number", "null"], **limits, "description": _NAN_IS_NULL}


def _limits(kind: str, answer: bool) -> JsonSchema:
    """Of what is narrower than JSON's own numbers, as good as every implementation has them."""
    if kind in _DOUBLES:
        return {}
    bound = _float_bound(kind)
    if answer and kind in ("float", "float32"):
        bound = max(bound, _FLOAT32_WRITTEN_MAX)
    return {"minimum": -bound, "maximum": bound}


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
        case TextOrTexts():
            return _EXAMPLES["string"]
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
