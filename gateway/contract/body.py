"""A request body (bytes) -> validated rows and params, or violations that point into the body.

Owns the three forms of a body (record, list, wrapper) and the rule for lists of unnamed inputs.
What the rows become on their way to the model is `frames.py`'s matter.
"""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Any

from pydantic_core import SchemaValidator, ValidationError, from_json

from gateway.contract import validation
from gateway.contract.text_formats import pointer
from gateway.contract.types import (
    AnyValue,
    ArrayOf,
    MapOf,
    ObjectOf,
    Param,
    Rows,
    TensorOf,
    TextOrTexts,
    TupleOf,
    Type,
    may_be_bare,
    takes_lists,
)
from gateway.errors import InvalidInput, MalformedJson, Violation, too_many_rows

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
        are_cells = self.inputs.named and self.inputs.extras == "refused"
        return validation.rows_validator(self._row, are_cells=are_cells)

    @cached_property
    def _most_members(self) -> float:
        """Of rows with more members no single one is reported."""
        if not isinstance(self._row, ObjectOf):
            return inf
        return len(self._row.fields) + validation.MAX_REPORTED

    @cached_property
    def _params(self) -> SchemaValidator:
        return validation.params_validator(self.params)

    def read(self, body: bytes, max_rows: int | None = None) -> Body:
        """Raises `MalformedJson`, `InvalidInput`, and `PayloadTooLarge` past `max_rows`."""
        value = read_json(body)
        if isinstance(value, dict) and "inputs" in value and wraps(self.inputs):
            return self._wrapper(value, max_rows)
        reading = self._inputs(value, (), max_rows)
        if reading.found:
            raise InvalidInput(tuple(reading.found))
        return Body(rows=reading.rows, at=(), single=reading.single, params={})

    def _wrapper(self, value: dict[str, Any], max_rows: int | None) -> Body:
        at = ("inputs",)
        reading = self._inputs(value["inputs"], at, max_rows)
        params, wrong = self.read_params(value.get("params", {}))
        found = [*reading.found, *wrong, *_strangers(value)]
        if found:
            raise InvalidInput(tuple(found))
        return Body(rows=reading.rows, at=at, single=reading.single, params=params)

    def read_params(
        self, value: Any, at: validation.Path = ("params",)
    ) -> tuple[dict[str, Any], list[Violation]]:
        """The validated params of an object that is at a path, and what is wrong with them."""
        try:
            (params,) = self._params.validate_python([value])
        except ValidationError as error:
            return {}, validation.violations(error, at)
        return params, []

    def _inputs(self, value: Any, at: tuple[str, ...], max_rows: int | None) -> _Reading:
        """A list is read as a list of inputs first, as one input where that doesn't fit.

        Where there are too many, none is looked at; or, where a list may be one input, no more
        than would be allowed.
        """
        if not isinstance(value, list):
            return self._single(value, at)
        limit = len(value) if max_rows is None else max_rows
        if len(value) > limit and not takes_lists(self._row):
            raise too_many_rows(limit)
        many = self._many(value if len(value) <= limit else value[:limit], at)
        if len(value) > limit and not many.found:
            raise too_many_rows(limit)
        if not many.found or not takes_lists(self._row):
            return many
        one = self._single(value, at)
        if one.found and any(resembles(element, self._row) for element in value):
            return many
        return one

    def _single(self, value: Any, at: tuple[str, ...]) -> _Reading:
        if self._crowded([value]) is not None:
            return _Reading([], [_too_many_members(at)], single=True)
        try:
            return _Reading(self._rows.validate_python([value]), [], single=True)
        except ValidationError as error:
            return _Reading([], validation.violations(error, at), single=True)

    def _many(self, values: list[Any], at: tuple[str, ...]) -> _Reading:
        rows: list[Any] = []
        found: list[Violation] = []
        for start in range(0, len(values), _PIECE):
            piece = values[start : start + _PIECE]
            crowded = self._crowded(piece)
            if crowded is not None:
                found.append(_too_many_members((*at, start + crowded)))
                break
            try:
                rows += self._rows.validate_python(piece)
            except ValidationError as error:
                found += validation.violations(error, at, start)
            if len(found) >= _ENOUGH:
                break
        return _Reading(rows, found, single=False)

    def _crowded(self, rows: list[Any]) -> int | None:
        """The first row with far more members than there are fields. To validate it would report
        them all, a microsecond and a hundred bytes for each."""
        if self._most_members == inf:
            return None
        try:
            if max(map(len, rows)) <= self._most_members:
                return None
        except TypeError:  # a row that has no length
            pass
        return next(
            (
                i
                for i, row in enumerate(rows)
                if isinstance(row, dict) and len(row) > self._most_members
            ),
            None,
        )


def _too_many_members(path: validation.Path) -> Violation:
    message = "Has thousands of members that the model's signature has not."
    return Violation(pointer=pointer(path), message=message)


def _strangers(wrapper: dict[str, Any]) -> list[Violation]:
    """The members of a wrapper that mean nothing."""
    message = "Unknown: beside inputs there may only be params."
    keys = [key for key in wrapper if key not in ("inputs", "params")]
    return [Violation(pointer=pointer((key,)), message=message) for key in keys[:_ENOUGH]]


def read_json(body: bytes) -> Any:
    """Strict JSON (RFC 8259); raises `MalformedJson`."""
    try:
        return from_json(body.removeprefix(BOM_UTF8), allow_inf_nan=False)
    except (ValueError, RecursionError):
        raise malformed(body) from None


def malformed(body: bytes) -> MalformedJson:
    """The refusal of what is no JSON text, with the place where it ceases to be one."""
    return MalformedJson(_why_malformed(body))


def _why_malformed(body: bytes) -> str:
    """With the place, where another parser finds one: the quick one tells it in its text alone."""
    if not body.removeprefix(BOM_UTF8).strip():
        return "The body is empty; it has to be JSON (RFC 8259)."
    try:
        json.loads(body.removeprefix(BOM_UTF8).decode("utf-8"))
    except UnicodeDecodeError as error:
        return f"The body is not text in UTF-8 at byte {error.start}."
    except json.JSONDecodeError as error:
        return (
            f"The body is not valid JSON (RFC 8259) at line {error.lineno}, column {error.colno}."
        )
    except (ValueError, RecursionError):
        pass  # it has another reason
    return (
        "The body is not valid JSON (RFC 8259): it has a NaN or an infinity, half a character or a "
        "number of thousands of digits, or is nested too deep."
    )


def resembles(value: Any, type_: Type) -> bool:
    """Whether the value is of the right sort (list, object, neither) for the type."""
    match type_:
        case AnyValue():
            return True
        case TextOrTexts():
            return not isinstance(value, dict)
        case ArrayOf() | TupleOf():
            return isinstance(value, list)
        case TensorOf():
            return may_be_bare(type_) or isinstance(value, list) == bool(type_.inner)
        case ObjectOf() | MapOf():
            return isinstance(value, dict)
        case _:
            return not isinstance(value, list | dict)
