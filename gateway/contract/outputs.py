"""A model's answer in plain form, and its rows: taken apart for callers who shared a call, put
together for one whose rows went in several.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, Literal, TypeAlias

import numpy as np

from gateway.contract.coercion import Column
from gateway.contract.frames import cells_at

Mark: TypeAlias = Sequence[str]
"""What an answer was where its columns or values don't show it: ("dict",) of columns, ("alone",) of
a value that was no list of one."""

# What a replica sends back: ("columns", names, columns) for a DataFrame or a dict of arrays, and
# ("values", array or list) for all else; with a mark behind it where there is one.
Output: TypeAlias = (
    tuple[Literal["columns"], Sequence[str], Sequence[Column]]
    | tuple[Literal["columns"], Sequence[str], Sequence[Column], Mark]
    | tuple[Literal["values"], Column]
    | tuple[Literal["values"], Column, Mark]
)


_SCALAR_BYTES = 9.0
"""Of a number in pickle, at most."""


def row_count(output: Output) -> int | None:
    """How many elements the answer has, in every column; None where that can't be said."""
    columns = (output[1],) if output[0] == "values" else output[2]
    counts = set(map(_count, columns))
    return counts.pop() if len(counts) == 1 else None


def mark_of(output: Output) -> Mark:
    """The mark of an answer; an empty one where it has none."""
    behind = output[2:] if output[0] == "values" else output[3:]
    mark: Mark = behind[0] if behind else ()
    return mark


def with_columns(output: Output, columns: Sequence[Column]) -> Output:
    """The same answer of other values: of its columns, or the only element of `columns`."""
    mark = mark_of(output)
    if output[0] == "values":
        return ("values", columns[0], mark) if mark else ("values", columns[0])
    return ("columns", output[1], columns, mark) if mark else ("columns", output[1], columns)


def has_rows(output: Output, rows: int) -> bool:
    """Whether the answer has one element for each of `rows` rows, in every column."""
    return row_count(output) == rows


def is_row_by_row(output: Output) -> bool:
    """Whether each row of it means the same whichever others are there: plain arrays and texts, of
    which nothing has to be guessed."""
    columns = (output[1],) if output[0] == "values" else output[2]
    return not mark_of(output) and all(map(_is_plain, columns))


def row_bytes(output: Output) -> float:
    """About how many bytes a row of the answer has on its way, by its first row alone."""
    if output[0] == "values":
        return _first_bytes(output[1])
    return sum(map(_first_bytes, output[2]))


def split_output(output: Output, sizes: Sequence[int]) -> list[Output]:
    """The answers to parts of `sizes` rows, of an answer that has the rows of them all."""
    return [output_slice(output, start, stop) for start, stop in bounds_of(sizes)]


def bounds_of(sizes: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Where parts of `sizes` rows begin and end, one behind the other."""
    return pairwise(accumulate(sizes, initial=0))


def output_slice(output: Output, start: int, stop: int) -> Output:
    """The answer to the rows from `start` up to `stop`."""
    columns = (output[1],) if output[0] == "values" else output[2]
    return with_columns(output, [column[start:stop] for column in columns])


def output_taken(output: Output, rows: Sequence[int]) -> Output:
    """The answer to those rows."""
    columns = (output[1],) if output[0] == "values" else output[2]
    return with_columns(output, [cells_at(column, rows) for column in columns])


def joined_output(outputs: Sequence[Output]) -> Output | None:
    """The answer to all rows, of answers to consecutive parts; None where they aren't alike. What
    was alone in each is so no more."""
    first = outputs[0]
    if len(outputs) == 1:
        return first
    marks = {tuple(mark_of(output)) for output in outputs} - {("alone",)}
    if first[0] == "values":
        columns = [output[1] for output in outputs if output[0] == "values"]
        return ("values", _joined(columns)) if len(columns) == len(outputs) else None
    names = list(first[1])
    parts = [o[2] for o in outputs if o[0] == "columns" and list(o[1]) == names]
    if len(parts) != len(outputs):
        return None
    joined = [_joined(pieces) for pieces in zip(*parts, strict=True)]
    return with_columns(first, joined) if len(marks) == 1 else ("columns", names, joined)


def _count(column: Any) -> int | None:
    if isinstance(column, np.ndarray):
        return int(column.shape[0]) if column.ndim else None
    return len(column) if isinstance(column, list | tuple) else None


def _is_plain(column: Column) -> bool:
    if isinstance(column, np.ndarray):
        return column.ndim > 0 and column.dtype.kind in "biuf"
    return set(map(type, column)) == {str}


def _first_bytes(column: Any) -> float:
    """About the bytes of a column's first element."""
    if isinstance(column, np.ndarray) and column.dtype.kind != "O":
        return column.nbytes / max(1, len(column)) if column.ndim else column.nbytes
    return _bytes(column[0]) if len(column) else 0.0


def _bytes(value: Any) -> float:
    """About the bytes of a value; all elements of a list are taken to be as its first."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, np.ndarray):
        return float(value.nbytes)
    if isinstance(value, list | tuple):
        return len(value) * _bytes(value[0]) if value else 0.0
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    return _SCALAR_BYTES


def _joined(pieces: Sequence[Column]) -> Column:
    """Arrays of one kind as an array; else a list, so that no piece changes another's values
    (NumPy would make floats of whole numbers that meet a float)."""
    arrays = [piece for piece in pieces if isinstance(piece, np.ndarray)]
    kinds = {(array.dtype, array.shape[1:]) for array in arrays}
    if len(arrays) == len(pieces) and len(kinds) == 1:
        return np.concatenate(arrays)
    return [value for piece in pieces for value in piece]
