"""The parser's fast path: rows of plain scalars, read column by column.

A shortcut and nothing more. What it takes, it takes as `validation` and `frames` would, several
times as fast; what it doesn't take (anything wrong, absent or null, any other type) goes the long
way, which also knows how to say what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import orjson

from gateway.contract.encoding import COLUMN_DTYPES
from gateway.contract.frames import Column, Frame, splits
from gateway.contract.signature import leaves_no_trace
from gateway.contract.types import Rows, Scalar, TextOrTexts, Type, float_bound, integer_bounds
from gateway.errors import too_many_rows

_NUMBERS = {float, int}
_FEW = 64
PlainReader = Callable[[Sequence[Any]], Column | None]


class PlainTable:
    """Reads rows of one contract whose inputs are named scalars."""

    def __init__(self, inputs: Rows, readers: tuple[PlainReader, ...]) -> None:
        self._readers = readers
        self._labels = inputs.labels
        # As `Framer` has it, so that both ways may share a call.
        apart = tuple(
            "text" if isinstance(field.type, TextOrTexts) else False
            for field in inputs.fields
            if splits(field)
        )
        self._key = (inputs.labels, *([apart] if apart else []))
        self._cells = itemgetter(*(field.name for field in inputs.fields))

    @staticmethod
    def of(inputs: Rows, accepted: Rows) -> PlainTable | None:
        """A reader of rows of `accepted` for a model with `inputs`; None if they aren't plain."""
        if inputs != accepted or not inputs.named or inputs.tensors or not inputs.fields:
            return None
        readers = [plain_reader(field.type) for field in inputs.fields]
        known = tuple(reader for reader in readers if reader is not None)
        # An optional integer that is null makes a frame of another kind (see `frames`).
        may_lack = any(not f.required and leaves_no_trace(f.type) for f in inputs.fields)
        if len(known) < len(readers) or may_lack:
            return None
        return PlainTable(inputs, known)

    def read(self, body: bytes, max_rows: int | None = None) -> Frame | None:
        """The rows of a bare record or list of records; None where they must go the long way.

        Raises `PayloadTooLarge` where a list has more than `max_rows`.

        orjson reads a number beyond 64 bits as a float; the columns that it could be in are of
        floats, or refuse it.
        """
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError:
            return None
        rows = value if type(value) is list else [value]
        if max_rows is not None and len(rows) > max_rows:
            raise too_many_rows(max_rows)
        return self.of_rows(rows)

    def of_rows(self, rows: list[Any]) -> Frame | None:
        """The same of JSON's values."""
        columns = self._columns(rows) if rows else None
        return None if columns is None else self._frame(columns, len(rows))

    def of_columns(self, columns: Mapping[str, Any], rows: int) -> Frame | None:
        """The same of lists by their columns' names."""
        if not rows or len(columns) != len(self._readers):
            return None
        try:
            by_column = self._cells(columns)
        except KeyError:
            return None
        lists = by_column if len(self._readers) > 1 else (by_column,)
        if any(type(each) is not list or len(each) != rows for each in lists):
            return None
        found = self._read(lists)
        return None if found is None else self._frame(found, rows)

    def _frame(self, columns: tuple[Column, ...], rows: int) -> Frame:
        return Frame(layout="table", names=self._labels, columns=columns, rows=rows, key=self._key)

    def _columns(self, rows: list[Any]) -> tuple[Column, ...] | None:
        try:
            cells = list(map(self._cells, rows))
        except (KeyError, TypeError):
            return None
        if set(map(len, rows)) != {len(self._readers)}:
            return None
        return self._read(zip(*cells, strict=True) if len(self._readers) > 1 else (cells,))

    def _read(self, by_column: Iterable[Sequence[Any]]) -> tuple[Column, ...] | None:
        found = []
        for read, values in zip(self._readers, by_column, strict=True):
            column = read(values)
            if column is None:
                return None
            found.append(column)
        return tuple(found)


def plain_reader(type_: Type) -> PlainReader | None:
    """Makes a column of values that are what the type says, and not null; None of all others."""
    match type_:
        case Scalar("double" | "float" as kind):
            return _floats(kind)
        case Scalar("integer" | "long" as kind):
            return _integers(kind)
        case Scalar("boolean"):
            return _booleans
        case Scalar("string") | TextOrTexts():
            return _strings
        case _:
            return None


def _floats(kind: str) -> PlainReader:
    bound, dtype = float_bound(kind), COLUMN_DTYPES[kind]

    def read(values: Sequence[Any]) -> Column | None:
        if not set(map(type, values)) <= _NUMBERS:
            return None
        column = np.array(values, dtype=np.float64)
        # NumPy is the faster one only where there is much to look at.
        few = len(values) <= _FEW
        least, most = (min(values), max(values)) if few else (column.min(), column.max())
        # What orjson rounded to the bound may have been beyond it.
        if not -bound < least <= most < bound:
            return None
        return column.astype(dtype, copy=False)

    return read


def _integers(kind: str) -> PlainReader:
    low, high = integer_bounds(kind)

    def read(values: Sequence[Any]) -> Column | None:
        if set(map(type, values)) != {int} or min(values) < low or max(values) > high:
            return None
        return np.array(values, dtype=COLUMN_DTYPES[kind])

    return read


def _booleans(values: Sequence[Any]) -> Column | None:
    return np.array(values, dtype=np.bool_) if set(map(type, values)) == {bool} else None


def _strings(values: Sequence[Any]) -> Column | None:
    return list(values) if set(map(type, values)) == {str} else None
