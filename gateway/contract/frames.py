"""Validated rows -> frames, the pieces that travel to the model as columns.

Owns the rules for null and for what may travel together (measured on MLflow 3.17's enforcement):

- An optional column that a row leaves out is null in it: NaN for float, double and string, as
  pandas has it in the table that a model was fitted to, NaT for datetime, None for the rest. So a
  row means the same to the model whoever travels with it, and a model that was fitted to a table
  finds all of its columns (without one of them a scikit-learn pipeline fails).
- An optional integer or long takes no null in any form. Rows that lack one are in a frame of
  their own, without that column.
- An optional boolean is an array of booleans, or None in a column of objects: those are apart.
- In a column of Any each kind of value is apart from all others: MLflow and pandas choose the
  column's type by all of its values, so that one row's neighbour could change another's.
- Rows of tensors with different inner shapes are in different frames, and a fixed first
  dimension makes frames of exactly that many rows.

Makes no DataFrame: pandas stays where the model is.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from gateway.contract.encoding import COLUMN_DTYPES, Encoder, Target, encoder
from gateway.contract.signature import leaves_no_trace
from gateway.contract.tensors import row_shape, stack, zeros
from gateway.contract.text_formats import pointer
from gateway.contract.types import (
    AnyValue,
    Field,
    Rows,
    Scalar,
    TensorOf,
    Type,
    integer_bounds,
)
from gateway.errors import InvalidInput, Violation

Layout = Literal["table", "tensor", "tensors", "values", "record"]
Column = np.ndarray | list[Any]

_BOOLEAN, _STRING = Scalar("boolean"), Scalar("string")
_KINDS = (type(None), bool, float, str)
_LONG_MIN, _LONG_MAX = integer_bounds("long")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Rows that can travel in one call of the model, as columns of equal length.

    - `table`: `pd.DataFrame(dict(zip(names, columns)))`; unnamed columns are called 0, 1, …
    - `tensor`: `columns[0]` is the ndarray
    - `tensors`: `dict(zip(names, columns))`, ndarrays
    - `values`: `columns[0]` is a list of plain Python values (models made from type hints)
    - `record`: `columns[0][0]` is a dict, passed as it is (agents, see `agents`)

    Frames of one contract with equal `key` may be concatenated. One that is `whole` has the fixed
    number of rows that the model asks for: it is never sliced, and no other has its key.
    """

    layout: Layout
    names: tuple[str | int, ...]
    columns: tuple[Column, ...]
    rows: int
    key: Hashable
    whole: bool = False

    @staticmethod
    def concat(frames: Sequence[Frame]) -> Frame:
        """The rows of all frames, in order. The keys must be equal."""
        first = frames[0]
        if len(frames) == 1:
            return first
        if any(frame.key != first.key for frame in frames):
            raise ValueError("frames with different keys don't travel together")
        columns = tuple(_joined(parts) for parts in zip(*(f.columns for f in frames), strict=True))
        return replace(first, columns=columns, rows=sum(frame.rows for frame in frames))

    def slice(self, start: int, stop: int) -> Frame:
        """The rows from `start` up to `stop`, which lie within the frame."""
        if not 0 <= start <= stop <= self.rows:
            raise ValueError("a slice lies within its frame")
        if (start, stop) == (0, self.rows):
            return self
        if self.whole:
            raise ValueError("the model takes these rows together or not at all")
        columns = tuple(column[start:stop] for column in self.columns)
        return replace(self, columns=columns, rows=stop - start)


Placed = tuple[tuple[Sequence[int], Frame], ...]


def _joined(parts: tuple[Column, ...]) -> Column:
    """All are arrays or all are lists, since their keys are equal."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return [value for values in parts for value in values]


class Framer:
    """Makes frames of the rows of one contract."""

    def __init__(self, inputs: Rows, accepted: Rows, *, from_type_hints: bool) -> None:
        self._inputs = inputs
        self._as_values = from_type_hints and not inputs.named and len(inputs.fields) == 1
        target = Target.PLAIN if self._as_values else Target.ENFORCED
        taken = {field.name: field.type for field in accepted.fields}
        self._apart = [f for f in inputs.fields if splits(f)]
        self._encoders = {f.name: encoder(f.type, taken[f.name], target) for f in inputs.fields}

    def frames(self, rows: list[Any], at: tuple[str, ...], single: bool) -> Placed:
        """The frames with the positions of their rows; raises `InvalidInput`.

        `at` and `single` say where in the body the rows were, for the pointers.
        """
        if not rows:
            return ()
        if self._inputs.tensors:
            return self._tensors(rows, at, single)
        if self._as_values:
            return ((range(len(rows)), self._values(rows)),)
        groups = self._groups(rows)
        return tuple((places, self._table(_at(rows, places))) for places in groups)

    def zeros(self) -> Frame | None:
        """The fewest rows of tensors of zeros; None where inputs are anything else, or too large
        (see `tensors.zeros`)."""
        rows = self._inputs.chunk or 1
        made = (zeros(field.type, rows) for field in self._inputs.fields)
        columns = tuple(column for column in made if column is not None)
        if not columns or len(columns) < len(self._inputs.fields):
            return None
        return self._tensor_frame(columns, rows, ())

    def _values(self, rows: list[Any]) -> Frame:
        (encode,) = self._encoders.values()
        values = rows if encode is None else [encode(row) for row in rows]
        return Frame(layout="values", names=(0,), columns=(values,), rows=len(rows), key="values")

    def _groups(self, rows: list[Any]) -> Iterable[Sequence[int]]:
        """Rows that may share a DataFrame; nearly always all of them."""
        if not self._apart:
            return [range(len(rows))]
        return _grouped(self._sorts(rows))

    def _sorts(self, rows: list[Any]) -> list[Hashable]:
        """What must be equal in rows of one DataFrame, per row."""
        columns = [[_sort(f, cell) for cell in self._cells(f, rows)] for f in self._apart]
        return list(zip(*columns, strict=True))

    def _table(self, rows: list[Any]) -> Frame:
        fields = [f for f in self._inputs.fields if self._present(f, rows[0])]
        labels = dict(zip((f.name for f in self._inputs.fields), self._inputs.labels, strict=True))
        names = tuple(labels[field.name] for field in fields)
        columns = tuple(
            _column(self._cells(field, rows), field.type, self._encoders[field.name])
            for field in fields
        )
        key = (names, *self._sorts(rows[:1]))
        return Frame(layout="table", names=names, columns=columns, rows=len(rows), key=key)

    def _present(self, field: Field, row: dict[str, Any]) -> bool:
        """Whether the frame of `row` has the column: all but integers that aren't there."""
        if field.required or not leaves_no_trace(field.type):
            return True
        return row.get(field.name) is not None

    def _cells(self, field: Field, rows: list[Any]) -> list[Any]:
        if self._inputs.named:
            return [row.get(field.name) for row in rows]
        if len(self._inputs.fields) == 1:
            return rows
        position = int(field.name)
        return [row[position] for row in rows]

    def _tensors(self, rows: list[Any], at: tuple[str, ...], single: bool) -> Placed:
        shapes = self._shapes(rows, at, single)
        places = self._chunks(_grouped(shapes), at)
        return tuple((chunk, self._tensor(_at(rows, chunk), shapes[chunk[0]])) for chunk in places)

    def _shapes(self, rows: list[Any], at: tuple[str, ...], single: bool) -> list[Hashable]:
        """The inner shapes of each row; raises `InvalidInput` for ragged ones."""
        shapes: list[Hashable] = [()] * len(rows)
        ragged = []
        for field in self._inputs.fields:
            if not isinstance(field.type, TensorOf) or -1 not in field.type.inner:
                continue
            for i, cell in enumerate(self._cells(field, rows)):
                shape = row_shape(cell, len(field.type.inner))
                shapes[i] = (shapes[i], shape)
                if shape is None:
                    name = (field.name,) if self._inputs.named else ()
                    ragged.append((*at, *name) if single else (*at, i, *name))
        if ragged:
            message = "Expected lists of equal length at each depth."
            raise InvalidInput(
                tuple(Violation(pointer=pointer(path), message=message) for path in ragged)
            )
        return shapes

    def _chunks(
        self, groups: Iterable[Sequence[int]], at: tuple[str, ...]
    ) -> Iterable[Sequence[int]]:
        size = self._inputs.chunk
        if size is None:
            return groups
        groups = list(groups)
        if any(len(group) % size for group in groups):
            message = f"Expected a multiple of {size} inputs (of each shape)."
            raise InvalidInput((Violation(pointer=pointer(at), message=message),))
        return [group[i : i + size] for group in groups for i in range(0, len(group), size)]

    def _tensor(self, rows: list[Any], shapes: Hashable) -> Frame:
        fields = self._inputs.fields
        columns = tuple(stack(self._cells(field, rows), field.type) for field in fields)
        return self._tensor_frame(columns, len(rows), shapes)

    def _tensor_frame(self, columns: tuple[Column, ...], rows: int, shapes: Hashable) -> Frame:
        whole = self._inputs.chunk is not None
        return Frame(
            layout="tensors" if self._inputs.named else "tensor",
            names=self._inputs.labels,
            columns=columns,
            rows=rows,
            key=object() if whole else (self._inputs.labels, shapes),
            whole=whole,
        )


def record_frames(rows: Sequence[dict[str, Any]]) -> Placed:
    """A frame for each object; none ever shares a call with another, and null is absent."""
    return tuple((range(i, i + 1), _record(row)) for i, row in enumerate(rows))


def _record(row: dict[str, Any]) -> Frame:
    present = {name: value for name, value in row.items() if value is not None}
    return Frame(layout="record", names=(), columns=([present],), rows=1, key=object(), whole=True)


def splits(field: Field) -> bool:
    """Whether what a row has in the column decides with which others it may travel (`_sort`)."""
    if isinstance(field.type, AnyValue):
        return True
    return not field.required and (leaves_no_trace(field.type) or field.type == _BOOLEAN)


def _sort(field: Field, cell: Any) -> Hashable:
    """Equal for cells that may be in one column."""
    if not isinstance(field.type, AnyValue):
        return cell is None
    kind = type(cell)
    if kind is int:
        return "long" if _LONG_MIN <= cell <= _LONG_MAX else "larger"
    return kind.__name__ if kind in _KINDS else "other"


def _at(rows: list[Any], places: Sequence[int]) -> list[Any]:
    return rows if len(places) == len(rows) else [rows[i] for i in places]


def _grouped(keys: Sequence[Hashable]) -> Iterable[Sequence[int]]:
    """The positions of equal keys, in the order in which they first appear."""
    groups: dict[Hashable, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    return [range(len(keys))] if len(groups) == 1 else groups.values()


def _column(values: list[Any], type_: Type, encode: Encoder | None) -> Column:
    """A column that pandas and MLflow take as the type; null is None, NaN or NaT."""
    if isinstance(type_, Scalar) and type_.kind in COLUMN_DTYPES:
        if type_.kind == "boolean" and values[0] is None:
            return values
        return np.array(values, dtype=COLUMN_DTYPES[type_.kind])
    if type_ == _STRING and None in values:
        return [np.nan if value is None else value for value in values]
    if encode is None:
        return values
    return [None if value is None else encode(value) for value in values]
