"""Outputs of a model -> the JSON answer, one element per row of the request.

Owns how what models return (DataFrames, arrays, lists of values or dicts) is matched with the
columns of the output signature. What each value may be is `coercion.py`'s matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

import numpy as np
import orjson

from gateway.contract.coercion import Coercer, Column, Unfit, anythings, coercer
from gateway.contract.one_column import of_one_column
from gateway.contract.outputs import Output
from gateway.contract.types import (
    AnyValue,
    ArrayOf,
    Field,
    MapOf,
    ObjectOf,
    Rows,
    TensorOf,
    Type,
    describe,
)
from gateway.errors import InvalidModelOutput

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


UNNAMED = "prediction"
"""The column of an answer that has no names."""


@dataclass(frozen=True, slots=True)
class AnswerColumn:
    """A column of an answer, by what the signature says of it; without one it is anything."""

    name: str
    type: Type
    required: bool
    values: list[Any]


class Renderer:
    """Renders answers of a model whose outputs are `own`, to callers who were promised another's.

    None is an output signature that is missing: anything JSON can say.
    """

    def __init__(self, own: Rows | None, promised: Rows | None) -> None:
        # a promise of anything is kept by what the model says, whatever it calls its columns
        self._own = None if promised is None or own is None else own
        self._promised = promised
        self._coercers: dict[str, Coercer] = {}
        if promised is not None:
            self._coercers = {
                f.name: coercer(f.type, optional=not f.required) for f in promised.fields
            }

    def render(self, outputs: Sequence[tuple[Sequence[int], Output]], rows: int) -> bytes:
        """The JSON list; raises `InvalidModelOutput`."""
        answers: list[Any] = [None] * rows
        for places, output in outputs:
            part = self._part(output, len(places))
            if len(places) == rows and places == range(rows):
                answers = part
                continue
            for place, answer in zip(places, part, strict=True):
                answers[place] = answer
        return _dumped(answers)

    def columns(
        self, outputs: Sequence[tuple[Sequence[int], Output]], rows: int
    ) -> list[AnswerColumn]:
        """The same answer by column, with the values that JSON would have.

        What has no columns of its own is one, named "prediction". Raises `InvalidModelOutput`.
        """
        if self._promised is None:
            return self._undeclared_columns(outputs, rows)
        fields = self._promised.fields
        if not self._promised.named and len(fields) == 1:
            fields = (replace(fields[0], name=UNNAMED),)
        values = {field.name: [None] * rows for field in fields}
        for places, output in outputs:
            part = self._part_by_column(output, len(places))
            for name, found in zip(values, part, strict=True):
                if found is not None:
                    values[name] = _placed(values[name], places, found)
        return [AnswerColumn(f.name, f.type, f.required, values[f.name]) for f in fields]

    def _part_by_column(self, output: Output, rows: int) -> list[list[Any] | None]:
        assert self._promised is not None
        own = self._own if self._own is not None else self._promised
        try:
            if not own.named and len(own.fields) == 1:
                return [self._coerced(self._promised.fields[0], _bare(output, own, rows))]
            present = self._present(self._promised, _columns(output, own, rows))
        except (Unfit, RecursionError):
            raise InvalidModelOutput("The model's answer is nothing that JSON can say.") from None
        return [present.get(field.name) for field in self._promised.fields]

    def _undeclared_columns(
        self, outputs: Sequence[tuple[Sequence[int], Output]], rows: int
    ) -> list[AnswerColumn]:
        values: dict[str, list[Any]] = {}
        for places, output in outputs:
            by_column = output[0] == "columns"
            names = [str(name) for name in output[1]] if by_column else [UNNAMED]
            columns = output[2] if output[0] == "columns" else [output[1]]
            for name, column in zip(names, columns, strict=True):
                try:
                    found = anythings(_counted(column, len(places)))
                except (Unfit, RecursionError):
                    raise InvalidModelOutput(
                        "The model's answer is nothing that JSON can say."
                    ) from None
                values[name] = _placed(values.get(name, [None] * rows), places, found)
        return [AnswerColumn(name, AnyValue(), False, column) for name, column in values.items()]

    def _part(self, output: Output, rows: int) -> list[Any]:
        try:
            if self._promised is None:
                return _undeclared(output, rows)
            own = self._own if self._own is not None else self._promised
            if _is_anything(own):
                return _undeclared(output, rows)
            if not own.named and len(own.fields) == 1:
                return self._coerced(self._promised.fields[0], _bare(output, own, rows))
            columns = _columns(output, own, rows)
            return self._rows(self._promised, columns, rows)
        except (Unfit, RecursionError):
            raise InvalidModelOutput("The model's answer is nothing that JSON can say.") from None

    def _rows(self, promised: Rows, columns: dict[str, Column], rows: int) -> list[Any]:
        present = self._present(promised, columns)
        if not present:
            return [{} for _ in range(rows)]
        if not promised.named:
            return [list(row) for row in zip(*present.values(), strict=True)]
        return _records(present)

    def _present(self, promised: Rows, columns: dict[str, Column]) -> dict[str, list[Any]]:
        present = {}
        for field in promised.fields:
            if field.name in columns:
                present[field.name] = self._coerced(field, columns[field.name])
            elif field.required:
                raise InvalidModelOutput(
                    f"The output {field.name!r} ({describe(field.type)}) is missing."
                )
        return present

    def _coerced(self, field: Field, column: Column) -> list[Any]:
        try:
            return self._coercers[field.name](of_one_column(column, field.type))
        except (Unfit, RecursionError):
            optional = "" if field.required else ", optional"
            raise InvalidModelOutput(
                f"The output {field.name!r} is declared as {describe(field.type)}{optional}, and "
                "the model answered something else."
            ) from None


def _placed(values: list[Any], places: Sequence[int], found: list[Any]) -> list[Any]:
    """All rows' values with those that belong to these places."""
    if len(places) == len(values) and places == range(len(values)):
        return found
    for place, value in zip(places, found, strict=True):
        values[place] = value
    return values


def _records(columns: Mapping[str, Column]) -> list[Any]:
    """Rows as dicts; both forms are several times as fast as to make each of them in Python."""
    if len(columns) == 1:
        ((name, values),) = columns.items()
        return [{name: value} for value in values]
    rows = zip(*columns.values(), strict=True)
    return list(map(dict, map(zip, repeat(tuple(columns)), rows)))


def _dumped(answers: list[Any]) -> bytes:
    try:
        return orjson.dumps(answers, option=_OPTIONS)
    except (TypeError, RecursionError):
        raise InvalidModelOutput("The model's answer is nothing that JSON can say.") from None


def _is_anything(own: Rows) -> bool:
    """Whether it declares nothing, as MLflow has it where type hints say nothing of answers."""
    return not own.named and len(own.fields) == 1 and isinstance(own.fields[0].type, AnyValue)


def _undeclared(output: Output, rows: int) -> list[Any]:
    if output[0] == "columns":
        columns = [anythings(_counted(column, rows)) for column in output[2]]
        names = [str(name) for name in output[1]]
        if len(set(names)) < len(names):
            raise InvalidModelOutput("Two columns of the model's answer have the same name.")
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return anythings(_counted(output[1], rows))


def _bare(output: Output, own: Rows, rows: int) -> Column:
    """The one unnamed column of a signature."""
    type_ = own.fields[0].type
    if output[0] == "values":
        return _counted(output[1], rows)
    columns = [_counted(column, rows) for column in output[2]]
    if isinstance(type_, ObjectOf | MapOf) and not _holds_dicts(columns):
        return [dict(zip(output[1], row, strict=True)) for row in zip(*columns, strict=True)]
    if len(columns) == 1:
        return columns[0]
    if isinstance(type_, ArrayOf | TensorOf):
        return [list(row) for row in zip(*columns, strict=True)]
    raise InvalidModelOutput(f"One output column is declared, and the model gave {len(columns)}.")


def _holds_dicts(columns: list[Column]) -> bool:
    return len(columns) == 1 and all(isinstance(value, Mapping) for value in columns[0])


def _columns(output: Output, own: Rows, rows: int) -> dict[str, Column]:
    """The columns by the names that the model's own signature gives them."""
    if output[0] == "columns":
        names, columns = output[1], [_counted(column, rows) for column in output[2]]
        given = dict(zip((str(name) for name in names), columns, strict=True))
        if own.named and any(field.name in given for field in own.fields):
            return given
        return _by_position(columns, own)
    values = _counted(output[1], rows)
    if own.named and _all_are(values, Mapping):
        return _of_records(list(values), own)
    return _by_position(_split(values, own), own)


def _all_are(values: Column, kind: type) -> bool:
    if isinstance(values, np.ndarray) and values.dtype.kind != "O":
        return False
    return len(values) > 0 and all(isinstance(value, kind) for value in values)


def _of_records(records: list[Any], own: Rows) -> dict[str, Column]:
    """Columns of a list of dicts; where no dict has the one declared name it is the dicts."""
    names = [field.name for field in own.fields]
    if len(names) == 1 and not any(names[0] in record for record in records):
        return {names[0]: records}
    columns: dict[str, Column] = {}
    for field in own.fields:
        have = sum(field.name in record for record in records)
        if have == len(records) or (have and not field.required):
            columns[field.name] = [record.get(field.name) for record in records]
    return columns


def _split(values: Column, own: Rows) -> list[Column]:
    """Values without names as as many columns as the signature has."""
    count = len(own.fields)
    if count == 1:
        return [values]
    if isinstance(values, np.ndarray) and values.ndim > 1:
        return [values[:, i] for i in range(values.shape[1])]
    rows = list(values)
    if all(isinstance(row, list | tuple | np.ndarray) and len(row) == count for row in rows):
        return [[row[i] for row in rows] for i in range(count)]
    raise InvalidModelOutput(f"{count} output columns are declared, and the model gave one.")


def _by_position(columns: list[Column], own: Rows) -> dict[str, Column]:
    if len(columns) != len(own.fields):
        names = ", ".join(repr(field.name) for field in own.fields)
        raise InvalidModelOutput(
            f"The model gave {len(columns)} columns, and {len(own.fields)} are declared: {names}."
        )
    return {field.name: column for field, column in zip(own.fields, columns, strict=True)}


def _counted(column: Column, rows: int) -> Column:
    """The column itself, if it has one element for each row of its frame."""
    sized = isinstance(column, list | tuple) or (isinstance(column, np.ndarray) and column.ndim > 0)
    if not sized or len(column) != rows:
        raise InvalidModelOutput(f"The model was given {rows} rows and answered another number.")
    return column
