"""Validated rows -> frames, the pieces that travel to the model as columns.

Owns the rules for null and for what may travel together (measured on MLflow 3.17's enforcement):

- An optional column that no row of a request has isn't there, as in MLflow's own server: models
  ask whether it is. Where some rows have it, it is null in the others: NaN for float, double and
  string, as pandas has it in the table that a model was fitted to, NaT for datetime, None for the
  rest. Requests that have different columns never share a call. So what a model sees of a request
  is the same whoever travels with it. (What was fitted to a table gets the columns that it lacks
  where the model is: `deployments.model_process.input`.)
- Where MLflow makes a dict of each row before the model sees it, a row has exactly the members that
  were sent: rows with different ones are in different frames.
- An optional integer or long takes no null in any form. Rows that lack one are in a frame of
  their own, without that column.
- An optional boolean is an array of booleans, or None in a column of objects: those are apart.
- In a column of Any each kind of value is apart from all others: MLflow and pandas choose the
  column's type by all of its values, so that one row's neighbour could change another's.
- A row with a list of strings in a column of `TextOrTexts` goes alone: MLflow's wrappers look at
  the first row's. So does each row of a model that is called row by row (`Contract.row_by_row`).
- Rows of tensors with different inner shapes are in different frames, and a fixed first
  dimension makes frames of exactly that many rows.

Makes no DataFrame: pandas stays where the model is.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, Literal, TypeAlias

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
    TextOrTexts,
    Type,
    integer_bounds,
)
from gateway.contract.validation import Path
from gateway.errors import InvalidInput, Violation

Layout = Literal["table", "tensor", "tensors", "values", "records", "record"]
Column = np.ndarray | list[Any]
Place: TypeAlias = Callable[[int | None, str], Path]
"""Where in the request a row's cell of a column is; without a row, where the column is."""

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
    - `records`: `pd.DataFrame(columns[0])`, a list of dicts (models without a signature)
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

    def taken(self, places: Sequence[int]) -> Frame:
        """The rows at those places, in their order."""
        if list(places) == list(range(self.rows)):
            return self
        if self.whole:
            raise ValueError("the model takes these rows together or not at all")
        columns = tuple(cells_at(column, places) for column in self.columns)
        return replace(self, columns=columns, rows=len(places))

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

    def __init__(
        self,
        inputs: Rows,
        accepted: Rows,
        *,
        from_type_hints: bool,
        rows_are_dicts: bool = False,
        row_by_row: bool = False,
    ) -> None:
        self._inputs = inputs
        self._optional = [f for f in inputs.fields if not f.required] if inputs.named else []
        self._as_dicts = rows_are_dicts
        self._row_by_row = row_by_row
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
        absent = self._absent_in(rows)
        there = (field for field in self._inputs.fields if field.name not in absent)
        cells = {field.name: self._cells(field, rows) for field in there}
        named = self._inputs.named

        def place(row: int | None, name: str) -> Path:
            inner = (name,) if named else ()
            return at if row is None else (*at, *inner) if single else (*at, row, *inner)

        return self.framed(cells, len(rows), place)

    def framed(self, cells: Mapping[str, Column], rows: int, place: Place) -> Placed:
        """The same of whole columns by their fields' names: lists of validated values, or arrays
        of the field's own dtype without nulls. What no row has isn't among them."""
        if not rows:
            return ()
        if self._inputs.tensors:
            return self._tensors(cells, rows, place)
        if self._as_values:
            (column,) = cells.values()
            return self._in_values(column, rows)
        groups = self._groups(cells, rows)
        return tuple(
            (places, self._table(_at(cells, places, rows), len(places))) for places in groups
        )

    def zeros(self) -> Frame | None:
        """The fewest rows of tensors of zeros; None where inputs are anything else, or too large
        (see `tensors.zeros`)."""
        rows = self._inputs.chunk or 1
        made = (zeros(field.type, rows) for field in self._inputs.fields)
        columns = tuple(column for column in made if column is not None)
        if not columns or len(columns) < len(self._inputs.fields):
            return None
        return self._tensor_frame(columns, rows, ())

    def _in_values(self, column: Column, rows: int) -> Placed:
        if not self._row_by_row:
            return ((range(rows), self._values(column)),)
        places = [range(i, i + 1) for i in range(rows)]
        return tuple((each, _alone(self._values(cells_at(column, each)))) for each in places)

    def _values(self, column: Column) -> Frame:
        (encode,) = self._encoders.values()
        plain = _listed(column)
        values = plain if encode is None else [encode(value) for value in plain]
        return Frame(layout="values", names=(0,), columns=(values,), rows=len(values), key="values")

    def _groups(self, cells: Mapping[str, Column], rows: int) -> Iterable[Sequence[int]]:
        """Rows that may share a DataFrame; nearly always all of them."""
        if self._row_by_row:
            return [range(i, i + 1) for i in range(rows)]
        keys: list[Any] = []
        if not all(isinstance(cells.get(field.name), np.ndarray) for field in self._apart):
            keys.append(self._sorts(cells, rows))
        if self._as_dicts:
            there = (cells[f.name] for f in self._optional if f.name in cells)
            keys += [[cell is None for cell in column[:rows]] for column in there]
        return _grouped(list(zip(*keys, strict=True))) if keys else [range(rows)]

    def _absent_in(self, rows: list[Any]) -> frozenset[str]:
        """The columns that no row of the request has."""
        return frozenset(f.name for f in self._optional if not any(f.name in row for row in rows))

    def _sorts(self, cells: Mapping[str, Column], rows: int) -> list[Hashable]:
        """What must be equal in rows of one DataFrame, per row."""
        nothing = [None] * rows
        columns = [
            [_sort(f, cell) for cell in cells.get(f.name, nothing)[:rows]] for f in self._apart
        ]
        return list(zip(*columns, strict=True))

    def _table(self, cells: Mapping[str, Column], rows: int) -> Frame:
        fields = [f for f in self._inputs.fields if self._present(f, cells.get(f.name))]
        if not fields:  # one is kept, for a table without columns has no rows
            kept = next(f for f in self._optional if not leaves_no_trace(f.type))
            fields, cells = [kept], {**cells, kept.name: [None] * rows}
        labels = dict(zip((f.name for f in self._inputs.fields), self._inputs.labels, strict=True))
        names = tuple(labels[field.name] for field in fields)
        columns = tuple(
            _column(cells[field.name], field.type, self._encoders[field.name]) for field in fields
        )
        key = (names, *self._sorts(cells, 1))
        frame = Frame(layout="table", names=names, columns=columns, rows=rows, key=key)
        return _alone(frame) if self._row_by_row or self._has_texts(cells) else frame

    def _has_texts(self, cells: Mapping[str, Column]) -> bool:
        """Whether some column of strings has a list of them in the first row."""
        fields = [f for f in self._apart if isinstance(f.type, TextOrTexts) and f.name in cells]
        return any(isinstance(cells[f.name][0], list) for f in fields)

    def _present(self, field: Field, column: Column | None) -> bool:
        """Whether a frame with these cells has the column: all but integers that aren't there,
        and what isn't in the dict that a row will be."""
        if column is None:
            return False
        if field.required or not (leaves_no_trace(field.type) or self._as_dicts):
            return True
        return column[0] is not None

    def _cells(self, field: Field, rows: list[Any]) -> list[Any]:
        if self._inputs.named:
            return [row.get(field.name) for row in rows]
        if len(self._inputs.fields) == 1:
            return rows
        position = int(field.name)
        return [row[position] for row in rows]

    def _tensors(self, cells: Mapping[str, Column], rows: int, place: Place) -> Placed:
        shapes = self._shapes(cells, rows, place)
        chunks = self._chunks(_grouped(shapes), place)
        return tuple(
            (chunk, self._tensor(_at(cells, chunk, rows), shapes[chunk[0]])) for chunk in chunks
        )

    def _shapes(self, cells: Mapping[str, Column], rows: int, place: Place) -> list[Hashable]:
        """The inner shapes of each row; raises `InvalidInput` for ragged ones."""
        shapes: list[Hashable] = [()] * rows
        ragged = []
        for field in self._inputs.fields:
            if not isinstance(field.type, TensorOf) or -1 not in field.type.inner:
                continue
            for i, shape in enumerate(_row_shapes(cells[field.name], len(field.type.inner))):
                shapes[i] = (shapes[i], shape)
                if shape is None:
                    ragged.append(place(i, field.name))
        if ragged:
            message = "Expected lists of equal length at each depth."
            raise InvalidInput(
                tuple(Violation(pointer=pointer(path), message=message) for path in ragged)
            )
        return shapes

    def _chunks(self, groups: Iterable[Sequence[int]], place: Place) -> Iterable[Sequence[int]]:
        size = self._inputs.chunk
        if size is None:
            return groups
        groups = list(groups)
        if any(len(group) % size for group in groups):
            message = f"Expected a multiple of {size} inputs (of each shape)."
            at = place(None, self._inputs.fields[0].name)
            raise InvalidInput((Violation(pointer=pointer(at), message=message),))
        return [group[i : i + size] for group in groups for i in range(0, len(group), size)]

    def _tensor(self, cells: Mapping[str, Column], shapes: Hashable) -> Frame:
        columns = tuple(_stacked(cells[field.name], field.type) for field in self._inputs.fields)
        return self._tensor_frame(columns, len(columns[0]), shapes)

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
    if isinstance(field.type, AnyValue | TextOrTexts):
        return True
    return not field.required and (leaves_no_trace(field.type) or field.type == _BOOLEAN)


def _sort(field: Field, cell: Any) -> Hashable:
    """Equal for cells that may be in one column."""
    if isinstance(field.type, TextOrTexts):
        return object() if isinstance(cell, list) else "text"
    if not isinstance(field.type, AnyValue):
        return cell is None
    kind = type(cell)
    if kind is int:
        return "long" if _LONG_MIN <= cell <= _LONG_MAX else "larger"
    return kind.__name__ if kind in _KINDS else "other"


def _alone(frame: Frame) -> Frame:
    """The frame as one that never shares a call."""
    return replace(frame, key=object(), whole=True)


def _at(cells: Mapping[str, Column], places: Sequence[int], rows: int) -> Mapping[str, Column]:
    if len(places) == rows:
        return cells
    return {name: cells_at(column, places) for name, column in cells.items()}


def cells_at(column: Column, places: Sequence[int]) -> Column:
    """The cells at those places, in their order."""
    return column[places] if isinstance(column, np.ndarray) else [column[i] for i in places]


def _listed(column: Column) -> list[Any]:
    """As plain Python values; moments stay NumPy's, which have the nanoseconds."""
    if not isinstance(column, np.ndarray):
        return column
    return list(column) if column.dtype.kind == "M" else column.tolist()


def _row_shapes(column: Column, dimensions: int) -> Iterable[tuple[int, ...] | None]:
    """The shape of each row; None of a ragged one, or one without elements."""
    if isinstance(column, np.ndarray):
        shape = None if 0 in column.shape[1:] else column.shape[1:]
        return repeat(shape, len(column))
    return (row_shape(cell, dimensions) for cell in column)


def _stacked(column: Column, type_: Type) -> np.ndarray:
    return column if isinstance(column, np.ndarray) else stack(column, type_)


def _grouped(keys: Sequence[Hashable]) -> Iterable[Sequence[int]]:
    """The positions of equal keys, in the order in which they first appear."""
    groups: dict[Hashable, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    return [range(len(keys))] if len(groups) == 1 else groups.values()


def _column(values: Column, type_: Type, encode: Encoder | None) -> Column:
    """A column that pandas and MLflow take as the type; null is None, NaN or NaT."""
    if isinstance(values, np.ndarray):
        return values
    if isinstance(type_, Scalar) and type_.kind in COLUMN_DTYPES:
        if type_.kind == "boolean" and values[0] is None:
            return values
        return np.array(values, dtype=COLUMN_DTYPES[type_.kind])
    if (type_ == _STRING or isinstance(type_, TextOrTexts)) and None in values:
        return [np.nan if value is None else value for value in values]
    if encode is None:
        return values
    return [None if value is None else encode(value) for value in values]
