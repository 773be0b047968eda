"""A request body (bytes) -> validated rows and params, or violations that point into the body.

Owns the three forms of a body (record, list, wrapper) and the rule for lists of unnamed inputs.
What the rows become on their way to the model is `frames.py`'s matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic_core import SchemaValidator, ValidationError, from_json

from gateway.contract import validation
from gateway.contract.notation import pointer
from gateway.contract.types import (
    AnyValue,
    ArrayOf,
    MapOf,
    ObjectOf,
    Param,
    Rows,
    TensorOf,
    TupleOf,
    Type,
    takes_lists,
)
from gateway.errors import InvalidInput, MalformedJson, Violation

MAX_DEPTH = 200
"""How many lists and objects of a body may be within each other.

It is the bound of pydantic-core's parser, which is exact; tests compare. The short way for plain
rows (`plain_table`) takes none that are nested deeper than a list of records.
"""

# Rows are validated in pieces of this many, and no further once there is enough to report.
_PIECE = 1_000
_ENOUGH = InvalidInput.MAX_VIOLATIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """Validated rows and params.

    `at` is the path of the rows' list, or of the one row where the body has no list of them.
    """

    rows: list[Any]
    at: tuple[str, ...]
    single: bool
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Reading:
    """One way to read a value as inputs: the rows, or why it doesn't fit."""

    rows: list[Any]
    found: list[Violation]
    single: bool


def wraps(inputs: Rows) -> bool:
    """Whether an object with the member "inputs" is the wrapper, and not an input itself."""
    row = inputs.row
    return not (isinstance(row, ObjectOf) and any(f.name == "inputs" for f in row.fields))


@dataclass(frozen=True)
class BodyReader:
    """Reads bodies for one contract. Its validators are built when they are first needed."""

    inputs: Rows
    params: tuple[Param, ...]

    @cached_property
    def _row(self) -> Type:
        return self.inputs.row

    @cached_property
    def _rows(self) -> SchemaValidator:
        return validation.rows_validator(self._row)

    @cached_property
    def _params(self) -> SchemaValidator:
        return validation.params_validator(self.params)

    def read(self, body: bytes) -> Body:
        """Raises `MalformedJson` and `InvalidInput`."""
        value = read_json(body)
        if isinstance(value, dict) and "inputs" in value and wraps(self.inputs):
            return self._wrapper(value)
        reading = self._inputs(value, ())
        if reading.found:
            raise InvalidInput(tuple(reading.found))
        return Body(rows=reading.rows, at=(), single=reading.single, params={})

    def _wrapper(self, value: dict[str, Any]) -> Body:
        at = ("inputs",)
        reading = self._inputs(value["inputs"], at)
        params, wrong = self._read_params(value.get("params", {}))
        found = [*reading.found, *wrong, *_strangers(value)]
        if found:
            raise InvalidInput(tuple(found))
        return Body(rows=reading.rows, at=at, single=reading.single, params=params)

    def _read_params(self, value: Any) -> tuple[dict[str, Any], list[Violation]]:
        try:
            (params,) = self._params.validate_python([value])
        except ValidationError as error:
            return {}, validation.violations(error, ("params",))
        return params, []

    def _inputs(self, value: Any, at: tuple[str, ...]) -> _Reading:
        """A list is read as a list of inputs first, as one input where that doesn't fit."""
        if not isinstance(value, list):
            return self._single(value, at)
        many = self._many(value, at)
        if not many.found or not takes_lists(self._row):
            return many
        one = self._single(value, at)
        if one.found and any(resembles(element, self._row) for element in value):
            return many
        return one

    def _single(self, value: Any, at: tuple[str, ...]) -> _Reading:
        try:
            return _Reading(self._rows.validate_python([value]), [], single=True)
        except ValidationError as error:
            return _Reading([], validation.violations(error, at), single=True)

    def _many(self, values: list[Any], at: tuple[str, ...]) -> _Reading:
        rows: list[Any] = []
        found: list[Violation] = []
        for start in range(0, len(values), _PIECE):
            try:
                rows += self._rows.validate_python(values[start : start + _PIECE])
            except ValidationError as error:
                found += validation.violations(error, at, start)
            if len(found) >= _ENOUGH:
                break
        return _Reading(rows, found, single=False)


def _strangers(wrapper: dict[str, Any]) -> list[Violation]:
    """The members of a wrapper that mean nothing."""
    message = "Unknown: beside inputs there may only be params."
    keys = [key for key in wrapper if key not in ("inputs", "params")]
    return [Violation(pointer=pointer((key,)), message=message) for key in keys[:_ENOUGH]]


def read_json(body: bytes) -> Any:
    """Strict JSON (RFC 8259); raises `MalformedJson`."""
    try:
        return from_json(body, allow_inf_nan=False)
    except (ValueError, RecursionError):
        raise MalformedJson(
            "The body is not valid JSON (RFC 8259), is nested too deep, or has a number of "
            "thousands of digits."
        ) from None


def resembles(value: Any, type_: Type) -> bool:
    """Whether the value is of the right sort (list, object, neither) for the type."""
    match type_:
        case AnyValue():
            return value is not None
        case ArrayOf() | TupleOf():
            return isinstance(value, list)
        case TensorOf():
            return isinstance(value, list) == bool(type_.inner)
        case ObjectOf() | MapOf():
            return isinstance(value, dict)
        case _:
            return not isinstance(value, list | dict)
