"""Outputs of a model -> the JSON answer, one element per row of the request.

Owns how what models return (DataFrames, arrays, lists of values or dicts) is matched with the
columns of the output signature. What each value may be is `coercion.py`'s matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import orjson

from gateway.contract.answer_text import dumped
from gateway.contract.coercion import Coercer, Column, Unfit, anythings, coercer, numbers
from gateway.contract.one_column import of_one_column
from gateway.contract.outputs import Output, bounds_of, is_row_by_row, row_count
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
_MANY = 64
"""Of more rows than these a column is written at once, where that can be."""

UNNAMED = "prediction"
"""The column of an answer that has no names."""


class AnswerColumn(NamedTuple):
    """A column of an answer, by what the signature says of it; without one it is anything.

    `values` are an array only where that was asked for, and it has numbers or truth values.
    """

    name: str
    type: Type
    required: bool
    values: Any

    @property
    def is_there(self) -> bool:
        """Whether it must be, or some row has it."""
        values = self.values
        if self.required or isinstance(values, np.ndarray) or not len(values):
            return True
        return any(value is not None for value in values)

    @property
    def is_whole(self) -> bool:
        """Whether it must be, or each row has it."""
        values = self.values
        if self.required or isinstance(values, np.ndarray):
            return True
        return all(value is not None for value in values)


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
        if rows > _MANY and len(outputs) == 1:
            written = self._column_of_numbers(outputs[0][1])
            if written is not None:
                return written
        parts = [(places, self._part(output, _rows_of(output))) for places, output in outputs]
        return dumped(_together(parts, rows))

    def _column_of_numbers(self, output: Output) -> bytes | None:
        """The records of one named column of numbers, of which none is made; None where it isn't
        that."""
        promised, own = self._promised, self._own
        if promised is None or own is None or not promised.named or not own.named:
            return None
        given = output[2] if output[0] == "columns" else [output[1]]
        if len(promised.fields) > 1 or not all(isinstance(each, np.ndarray) for each in given):
            return None
        _rows_of(output)
        (field,) = promised.fields
        column = _columns(output, own).get(field.name)
        if column is None:
            return None
        try:
            values = numbers(of_one_column(column, field.type), field.type)
        except Unfit:
            return None
        if values is None:
            return None
        start = b"{%b:" % orjson.dumps(field.name)
        # In numbers, true, false and null there is no comma.
        written = orjson.dumps(np.ascontiguousarray(values), option=_OPTIONS)
        return b"[%b%b}]" % (start, written[1:-1].replace(b",", b"}," + start))

    def render_each(self, output: Output, sizes: Sequence[int]) -> list[bytes] | None:
        """The lists of several requests, whose rows in that order the answer is to; None where what
        becomes of one's could depend on the others', or not all of them fit."""
        if not is_row_by_row(output):
            return None
        try:
            answers = self._part(output, _rows_of(output))
        except InvalidModelOutput:
            return None
        return [dumped(answers[start:stop]) for start, stop in bounds_of(sizes)]

    def columns(
        self, outputs: Sequence[tuple[Sequence[int], Output]], rows: int, *, arrays: bool = False
    ) -> list[AnswerColumn]:
        """The same answer by column, with the values that JSON would have; where `arrays` are
        wanted, one of plain numbers stays an array.

        What has no columns of its own is one, named "prediction". Raises `InvalidModelOutput`.
        """
        arrays = arrays and len(outputs) == 1
        own = self._own if self._own is not None else self._promised
        if self._promised is None or own is None or (is_anything(own) and _has_columns(outputs)):
            return self._undeclared_columns(outputs, rows)
        fields = self._promised.fields
        if not self._promised.named and len(fields) == 1:
            fields = (replace(fields[0], name=UNNAMED),)
        parts = [(places, self._part_by_column(output, arrays)) for places, output in outputs]
        return [
            AnswerColumn(
                field.name,
                field.type,
                field.required,
                _together([(places, part[i]) for places, part in parts], rows),
            )
            for i, field in enumerate(fields)
        ]

    def _part_by_column(self, output: Output, arrays: bool) -> list[Any]:
        assert self._promised is not None
        own = self._own if self._own is not None else self._promised
        try:
            if not own.named and len(own.fields) == 1:
                return [self._coerced(self._promised.fields[0], _bare(output, own), arrays)]
            present = self._present(self._promised, _columns(output, own), arrays)
        except (Unfit, RecursionError):
            raise InvalidModelOutput("The model's answer is nothing that JSON can say.") from None
        nothing: list[Any] = [None] * _rows_of(output)
        return [present.get(field.name, nothing) for field in self._promised.fields]

    def _undeclared_columns(
        self, outputs: Sequence[tuple[Sequence[int], Output]], rows: int
    ) -> list[AnswerColumn]:
        parts = [(places, _rows_of(output), _by_name(output)) for places, output in outputs]
        names = dict.fromkeys(name for _, _, columns in parts for name in columns)
        values = {
            name: _together([(p, columns.get(name, [None] * n)) for p, n, columns in parts], rows)
            for name in names
        }
        return [AnswerColumn(name, AnyValue(), False, column) for name, column in values.items()]

    def _part(self, output: Output, rows: int) -> list[Any]:
        try:
            if self._promised is None:
                return _undeclared(output)
            own = self._own if self._own is not None else self._promised
            if is_anything(own):
                return _undeclared(output)
            if not own.named and len(own.fields) == 1:
                only: list[Any] = self._coerced(self._promised.fields[0], _bare(output, own))
                return only
            made = self._rows(self._promised, _columns(output, own), rows)
            return _left_out(made, output, self._promised) if self._promised.named else made
        except (Unfit, RecursionError):
            raise InvalidModelOutput("The model's answer is nothing that JSON can say.") from None

    def _rows(self, promised: Rows, columns: dict[str, Column], rows: int) -> list[Any]:
        present = self._present(promised, columns)
        if not present:
            return [{} for _ in range(rows)]
        if not promised.named:
            return [list(row) for row in zip(*present.values(), strict=True)]
        return _records(present)

    def _present(
        self, promised: Rows, columns: dict[str, Column], arrays: bool = False
    ) -> dict[str, Any]:
        present = {}
        for field in promised.fields:
            if field.name in columns:
                present[field.name] = self._coerced(field, columns[field.name], arrays)
            elif field.required:
                raise InvalidModelOutput(
                    f"The output {field.name!r} ({describe(field.type)}) is missing."
                )
        return present

    def _coerced(self, field: Field, column: Column, arrays: bool = False) -> Any:
        try:
            column = of_one_column(column, field.type)
            array = numbers(column, field.type) if arrays else None
            return self._coercers[field.name](column) if array is None else array
        except (Unfit, RecursionError):
            optional = "" if field.required else ", optional"
            raise InvalidModelOutput(
                f"The output {field.name!r} is declared as {describe(field.type)}{optional}, and "
                "the model answered something else."
            ) from None


def _left_out(made: list[Any], output: Output, promised: Rows) -> list[Any]:
    """The records without those optional members that the model left out of some of them."""
    if output[0] != "values" or not _all_are(output[1], Mapping):
        return made
    for field in promised.fields:
        there = [field.name in given for given in output[1]]
        if any(there) and not all(there):
            for record, is_there in zip(made, there, strict=True):
                if not is_there:
                    record.pop(field.name, None)
    return made


def _rows_of(output: Output) -> int:
    """How many rows the answer has; raises `InvalidModelOutput` where its columns disagree."""
    rows = row_count(output)
    if rows is None:
        raise InvalidModelOutput("The columns of the model's answer have different lengths.")
    return rows


def _together(parts: Sequence[tuple[Sequence[int], list[Any]]], rows: int) -> list[Any]:
    """The answers to all frames, where the rows were."""
    if len(parts) == 1:
        return parts[0][1]
    if any(len(places) != len(part) for places, part in parts):
        return _in_order(parts, rows)
    answers: list[Any] = [None] * rows
    for places, part in parts:
        for place, answer in zip(places, part, strict=True):
            answers[place] = answer
    return answers


def _in_order(parts: Sequence[tuple[Sequence[int], list[Any]]], rows: int) -> list[Any]:
    """Answers of other lengths than their rows, one after the other, where the rows were."""
    if [place for places, _ in parts for place in places] != list(range(rows)):
        raise InvalidModelOutput(
            "The model was called several times for these rows, and answered with other numbers of "
            "them: which are whose can't be told. Ask for one input at a time."
        )
    return [answer for _, part in parts for answer in part]


def _records(columns: Mapping[str, Column]) -> list[Any]:
    """Rows as dicts; both forms are several times as fast as to make each of them in Python."""
    if len(columns) == 1:
        ((name, values),) = columns.items()
        return [{name: value} for value in values]
    rows = zip(*columns.values(), strict=True)
    return list(map(dict, map(zip, repeat(tuple(columns)), rows)))


def is_anything(own: Rows) -> bool:
    """Whether it declares nothing, as MLflow has it where type hints say nothing of answers."""
    return not own.named and len(own.fields) == 1 and isinstance(own.fields[0].type, AnyValue)


def _has_columns(outputs: Sequence[tuple[Sequence[int], Output]]) -> bool:
    return any(output[0] == "columns" for _, output in outputs)


def _by_name(output: Output) -> dict[str, list[Any]]:
    """What JSON says of the columns that nobody declared."""
    names = [str(name) for name in output[1]] if output[0] == "columns" else [UNNAMED]
    columns = output[2] if output[0] == "columns" else [output[1]]
    try:
        return {name: anythings(column) for name, column in zip(names, columns, strict=True)}
    except (Unfit, RecursionError):
        raise InvalidModelOutput("The model's answer is nothing that JSON can say.") from None


def _undeclared(output: Output) -> list[Any]:
    if output[0] == "columns":
        columns = [anythings(column) for column in output[2]]
        names = [str(name) for name in output[1]]
        if len(set(names)) < len(names):
            raise InvalidModelOutput("Two columns of the model's answer have the same name.")
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return anythings(output[1])


def _bare(output: Output, own: Rows) -> Column:
    """The one unnamed column of a signature."""
    type_ = own.fields[0].type
    if output[0] == "values":
        return output[1]
    columns = list(output[2])
    if isinstance(type_, ObjectOf | MapOf) and not _holds_dicts(columns):
        return [dict(zip(output[1], row, strict=True)) for row in zip(*columns, strict=True)]
    if len(columns) == 1:
        return columns[0]
    if isinstance(type_, ArrayOf | TensorOf):
        return [list(row) for row in zip(*columns, strict=True)]
    raise InvalidModelOutput(f"One output column is declared, and the model gave {len(columns)}.")


def _holds_dicts(columns: list[Column]) -> bool:
    return len(columns) == 1 and all(isinstance(value, Mapping) for value in columns[0])


def _columns(output: Output, own: Rows) -> dict[str, Column]:
    """The columns by the names that the model's own signature gives them."""
    if output[0] == "values":
        return _of_values(output[1], own)
    names, columns = [str(name) for name in output[1]], list(output[2])
    given = dict(zip(names, columns, strict=True))
    if own.named and any(field.name in given for field in own.fields):
        return given
    if len(columns) == 1 and (len(own.fields) == 1 or _all_are(columns[0], Mapping)):
        return _of_values(columns[0], own)
    if own.named and names != [str(i) for i in range(len(names))]:
        declared = ", ".join(repr(field.name) for field in own.fields)
        raise InvalidModelOutput(
            f"The outputs {declared} are declared, and the model's answer calls its columns "
            "otherwise."
        )
    return _by_position(columns, own)


def _of_values(values: Column, own: Rows) -> dict[str, Column]:
    """Columns of what has no names that count: a row's value each, or its object."""
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
