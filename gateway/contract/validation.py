"""Validators of JSON values for the types of `types.py`, run by pydantic-core.

pydantic-core is used directly: field names may be any string, and plain values never enter
Python. A validated value is what JSON said, cast to the type: whole numbers are `int`, fractional
ones `float`, binary is `bytes`, a moment is `np.datetime64[ns]`. Lists inside of a row stop at
their first wrong element, so a wrong type costs one violation and not one per element.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import numpy as np
from pydantic_core import CoreSchema, SchemaValidator, ValidationError, core_schema

from gateway.contract.text_formats import (
    are_in_range,
    pointer,
    read_base64,
    read_datetime,
    read_with_offset,
)
from gateway.contract.types import (
    AnyValue,
    ArrayOf,
    Extras,
    Field,
    MapOf,
    ObjectOf,
    Param,
    Scalar,
    TensorOf,
    TextOrTexts,
    TupleOf,
    Type,
    float_bound,
    integer_bounds,
    may_be_bare,
)
from gateway.errors import Violation

Path: TypeAlias = tuple[str | int, ...]

# Beyond this many, one violation says that there are too many: they cost a microsecond each.
MAX_REPORTED = 10_000

_MOMENT = "a date and time as an ISO 8601 string (years 1678 to 2261)"
_EXTRAS: dict[Extras, Literal["forbid", "ignore", "allow"]] = {
    "refused": "forbid",
    "dropped": "ignore",
    "kept": "allow",
}


def rows_validator(row: Type, *, are_cells: bool = False) -> SchemaValidator:
    """A validator of a list of rows; unlike lists inside of a row it reports every row.

    Of a row that may be anything it takes null as well: with [1, null] two inputs are meant. Rows
    that `are_cells` of columns are looked up by name: the order of their members says nothing.
    """
    if are_cells and isinstance(row, ObjectOf):
        each = _object(row)
    else:
        each = _schema(row) if isinstance(row, AnyValue) else _member(Field("", row))
    return SchemaValidator(core_schema.list_schema(each, strict=True))


def column_validator(field: Field) -> SchemaValidator:
    """A validator of a list of one column's cells, which reports every cell."""
    return SchemaValidator(core_schema.list_schema(_member(field), strict=True))


def params_validator(params: Iterable[Param]) -> SchemaValidator:
    """A validator of a list of one: the object with the params. Each of them may be absent."""
    fields = {
        p.name: core_schema.typed_dict_field(
            core_schema.nullable_schema(_schema(p.type, nullable=True))
            if p.nullable
            else _schema(p.type),
            required=False,
        )
        for p in params
    }
    members = core_schema.typed_dict_schema(fields, strict=True, extra_behavior="forbid")
    as_sent = core_schema.no_info_wrap_validator_function(_as_sent, members)
    return SchemaValidator(core_schema.list_schema(as_sent))


def violations(error: ValidationError, at: Path, start: int | None = None) -> list[Violation]:
    """What the error says, with pointers into the body.

    `at` is the path of what was validated. Rows are validated as (a piece of) a list: `start` is
    then the position of its first row; None is one row, whose position in the list of one that
    it was validated as is no part of the pointer.
    """
    return [
        Violation(pointer=pointer((*at, *path)), message=message)
        for path, message in located(error, start)
    ]


def located(error: ValidationError, start: int | None = None) -> list[tuple[Path, str]]:
    """The same as paths within what was validated and messages; of too many, one."""
    count = error.error_count()
    if count > MAX_REPORTED:
        return [((), f"Does not fit in {count} places.")]
    found = error.errors(include_url=False, include_input=False)
    return [(_place(each["loc"], start), _message(each)) for each in found]


def _place(loc: Path, start: int | None) -> Path:
    index, *rest = loc
    return tuple(rest) if start is None else (int(index) + start, *rest)


def _message(error: Any) -> str:
    """What is expected, told by the error's type (never by its text, which may repeat values)."""
    match error["type"]:
        case "expected":
            return str(error["msg"])
        case "list_type" | "tuple_type":
            return "Expected a list."
        case "dict_type":
            return "Expected an object."
        case "missing":
            return "Required, and missing."
        case "extra_forbidden":
            return "Unknown: the model's signature has no such member."
        case "too_short":
            return f"Expected a list of at least {error['ctx']['min_length']} elements."
        case "too_long":
            return f"Expected a list of at most {error['ctx']['max_length']} elements."
        case _:
            return "Does not fit the model's signature."


def _expecting(schema: CoreSchema, what: str, nullable: bool) -> CoreSchema:
    """The schema with one message for whatever goes wrong, and no branch names in the path."""
    or_null = " or null" if nullable else ""
    return core_schema.custom_error_schema(
        schema, custom_error_type="expected", custom_error_message=f"Expected {what}{or_null}."
    )


def _schema(type_: Type, nullable: bool = False) -> CoreSchema:
    match type_:
        case Scalar("datetime", has_offset=True):
            return _expecting(_calling(_moment_as_sent), _MOMENT, nullable)
        case Scalar(kind):
            return _scalar(kind, nullable)
        case TextOrTexts():
            return _texts(nullable)
        case ArrayOf(items, gaps):
            return core_schema.list_schema(_element(items, gaps), strict=True, fail_fast=True)
        case MapOf(values, gaps):
            return core_schema.dict_schema(
                values_schema=_element(values, gaps), strict=True, fail_fast=True
            )
        case AnyValue():
            return core_schema.any_schema()
        case TupleOf(items):
            # lax, because JSON has lists only; the items are as strict as ever
            return core_schema.tuple_schema([_member(Field("", item)) for item in items])
        case ObjectOf():
            return core_schema.no_info_wrap_validator_function(_as_sent, _object(type_))
        case TensorOf():
            return _tensor(type_)


def _object(type_: ObjectOf) -> CoreSchema:
    return core_schema.typed_dict_schema(
        {field.name: _typed_field(field) for field in type_.fields},
        strict=True,
        extra_behavior=_EXTRAS[type_.extras],
    )


def _as_sent(value: Any, validated: core_schema.ValidatorFunctionWrapHandler) -> Any:
    """An object with its members in the order in which they were sent, as MLflow's own server hands
    it over; pydantic-core has them in that of the declaration."""
    made = validated(value)
    names = [name for name in value if name in made]
    return made if names == list(made) else {name: made[name] for name in names}


def _element(type_: Type, gaps: bool) -> CoreSchema:
    """Of a list or a map."""
    if not gaps:
        return _schema(type_)
    return core_schema.nullable_schema(_schema(type_, nullable=True))


def _typed_field(field: Field) -> core_schema.TypedDictField:
    return core_schema.typed_dict_field(_member(field), required=field.required)


def _member(field: Field) -> CoreSchema:
    """A column, a property or a whole row: null exactly where it is optional."""
    if field.class_decides:
        declared = _member(replace(field, class_decides=False))
        return core_schema.union_schema([declared, core_schema.any_schema()], mode="left_to_right")
    if not field.required:
        return core_schema.nullable_schema(_schema(field.type, nullable=True))
    if isinstance(field.type, AnyValue):
        return _expecting(_calling(_not_null), "any value but null", nullable=False)
    return _schema(field.type)


def _tensor(type_: TensorOf) -> CoreSchema:
    """Nested lists; a free dimension has at least one element, so that depth tells the shape. The
    one value of a row may come bare, as in a table of one column."""
    element = schema = _dtype(type_)
    for size in reversed(type_.inner):
        low, high = (1, None) if size == -1 else (size, size)
        schema = core_schema.list_schema(
            schema, min_length=low, max_length=high, strict=True, fail_fast=True
        )
    if not may_be_bare(type_):
        return schema
    bare = SchemaValidator(element)

    def either(value: Any, in_lists: core_schema.ValidatorFunctionWrapHandler) -> Any:
        if isinstance(value, list):
            return in_lists(value)
        return _within_lists(bare.validate_python(value), depth=len(type_.inner))

    return core_schema.no_info_wrap_validator_function(either, schema)


def _within_lists(value: Any, *, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


def _dtype(type_: TensorOf) -> CoreSchema:
    match type_.dtype.kind:
        case "b":
            return _scalar("boolean", False)
        case "i" | "u":
            return _integer(type_.dtype.name, False)
        case "f":
            return _float(type_.dtype.name, False)
        case "U":
            return _scalar("string", False)
        case "S":
            return _scalar("binary", False)
        case "M":
            return _scalar("datetime", False)
        case _:
            return core_schema.any_schema()


def _scalar(kind: str, nullable: bool) -> CoreSchema:
    match kind:
        case "boolean":
            return _expecting(core_schema.bool_schema(strict=True), "true or false", nullable)
        case "integer" | "long":
            return _integer(kind, nullable)
        case "float" | "double":
            return _float(kind, nullable)
        case "string":
            return _expecting(core_schema.str_schema(strict=True), "a string", nullable)
        case "binary":
            return _expecting(_calling(_bytes), "bytes as a base64 string", nullable)
        case _:
            return _expecting(_calling(_moment), _MOMENT, nullable)


def _texts(nullable: bool) -> CoreSchema:
    text = core_schema.str_schema(strict=True)
    texts = core_schema.list_schema(text, min_length=1, strict=True, fail_fast=True)
    either = core_schema.union_schema([text, texts], mode="left_to_right")
    return _expecting(either, "a string or a list of strings", nullable)


def _calling(function: Callable[[Any], Any]) -> CoreSchema:
    return core_schema.no_info_plain_validator_function(function)


def _bytes(value: Any) -> bytes:
    """Of base64; what isn't JSON's has bytes themselves."""
    return value if isinstance(value, bytes) else read_base64(value)


def _moment(value: Any) -> np.datetime64:
    """Of a text; what isn't JSON's has moments themselves."""
    if not isinstance(value, np.datetime64):
        return read_datetime(value)
    if not are_in_range(np.array([value]))[0]:
        raise ValueError
    moment: np.datetime64 = value.astype("M8[ns]")
    return moment


def _moment_as_sent(value: Any) -> np.datetime64 | dt.datetime:
    return read_with_offset(value) if isinstance(value, str) else _moment(value)


def _integer(kind: str, nullable: bool) -> CoreSchema:
    low, high = integer_bounds(kind)

    def whole(value: Any) -> int:
        if type(value) is float and value.is_integer() and low <= value <= high:
            return int(value)
        raise ValueError

    schema = core_schema.union_schema(
        [core_schema.int_schema(strict=True, ge=low, le=high), _calling(whole)],
        mode="left_to_right",
    )
    return _expecting(schema, f"a whole number from {low} to {high}", nullable)


def _float(kind: str, nullable: bool) -> CoreSchema:
    """Integers have a branch of their own: their bound is exact, before they are rounded."""
    bound = float_bound(kind)
    as_float = core_schema.chain_schema(
        [core_schema.is_instance_schema(float), core_schema.float_schema(ge=-bound, le=bound)]
    )
    as_int = core_schema.chain_schema(
        [
            core_schema.int_schema(strict=True, ge=-int(bound), le=int(bound)),
            core_schema.float_schema(),
        ]
    )
    schema = core_schema.union_schema([as_float, as_int], mode="left_to_right")
    limit = "" if kind in ("double", "float64") else f" from {-bound!r} to {bound!r}"
    return _expecting(schema, f"a finite number{limit}", nullable)


def _not_null(value: Any) -> Any:
    if value is None:
        raise ValueError
    return value
