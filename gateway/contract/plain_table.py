"""The parser's fast path: rows of plain scalars, read column by column.

A shortcut and nothing more. What it takes, it takes as `validation` and `frames` would, several
times as fast; what it doesn't take (anything wrong, absent or null, any other type) goes the long
way, which also knows how to say what is wrong.

A body by itself is decoded by msgspec into structs with the signature's fields, which checks types
on the way (https://jcristharif.com/msgspec/structs.html); rows that have been read are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter, itemgetter
from typing import Any, TypeAlias

import msgspec
import numpy as np

from gateway.contract.encoding import COLUMN_DTYPES
from gateway.contract.frames import Column, Frame, splits
from gateway.contract.signature import leaves_no_trace
from gateway.contract.types import Rows, Scalar, TextOrTexts, Type, float_bound, integer_bounds
from gateway.errors import too_many_rows

_FEW = 64
_Decoder: TypeAlias = "msgspec.json.Decoder[Any]"


@dataclass(frozen=True, slots=True)
class PlainColumn:
    """Makes a column of values that are what a type says, and not null; None of all others."""

    types: frozenset[type]
    """Those of JSON's values that it takes."""

    decoded: type
    """What they are decoded to: of a whole number a float, where a float is declared."""

    of_types: Callable[[Sequence[Any]], Column | None]
    """The column of values that are known to be of these types."""

    def read(self, values: Sequence[Any]) -> Column | None:
        """The column of any values of JSON's."""
        return self.of_types(values) if self.types.issuperset(map(type, values)) else None


class PlainTable:
    """Reads rows of one contract whose inputs are named scalars."""

    def __init__(self, inputs: Rows, columns: tuple[PlainColumn, ...]) -> None:
        self._plain = columns
        self._labels = inputs.labels
        # As `Framer` has it, so that both ways may share a call.
        apart = tuple(
            "text" if isinstance(field.type, TextOrTexts) else False
            for field in inputs.fields
            if splits(field)
        )
        self._key = (inputs.labels, *([apart] if apart else []))
        self._names = [field.name for field in inputs.fields]
        self._cells = itemgetter(*self._names)

    @staticmethod
    def of(inputs: Rows, accepted: Rows) -> PlainTable | None:
        """A reader of rows of `accepted` for a model with `inputs`; None if they aren't plain."""
        if inputs != accepted or not inputs.named or inputs.tensors or not inputs.fields:
            return None
        columns = [plain_column(field.type) for field in inputs.fields]
        known = tuple(column for column in columns if column is not None)
        # An optional integer that is null makes a frame of another kind (see `frames`).
        may_lack = any(not f.required and leaves_no_trace(f.type) for f in inputs.fields)
        if len(known) < len(columns) or may_lack:
            return None
        return PlainTable(inputs, known)

    def read(self, body: bytes, max_rows: int | None = None) -> Frame | None:
        """The rows of a bare record or list of records; None where they must go the long way.

        Raises `PayloadTooLarge` where a list has more than `max_rows`.
        """
        value = _decoded(self._records, body)
        if value is None:
            return None
        rows = value if type(value) is list else [value]
        return self._of_lists(
            (list(map(cell, rows)) for cell in self._members), len(rows), max_rows
        )

    def read_columns(self, body: bytes, max_rows: int | None = None) -> Frame | None:
        """The same of an object with the one member "columns", an object of lists."""
        value = _decoded(self._lists, body)
        if value is None:
            return None
        lists = [column(value.columns) for column in self._members]
        rows = len(lists[0])
        if any(len(each) != rows for each in lists):
            return None
        return self._of_lists(lists, rows, max_rows)

    def _of_lists(
        self, lists: Iterable[list[Any]], rows: int, max_rows: int | None
    ) -> Frame | None:
        """The frame of columns that have been decoded."""
        if not rows:
            return None
        if max_rows is not None and rows > max_rows:
            raise too_many_rows(max_rows)
        return self._framed(lists, rows, are_decoded=True)

    @cached_property
    def _members(self) -> list[Callable[[Any], Any]]:
        """What takes each column's member out of a struct."""
        return [attrgetter(_member(i)) for i in range(len(self._plain))]

    @cached_property
    def _records(self) -> _Decoder | None:
        """Decodes a record or a list of them."""
        record = self._struct([column.decoded for column in self._plain])
        return None if record is None else msgspec.json.Decoder(record | list[record])  # type: ignore[valid-type]

    @cached_property
    def _lists(self) -> _Decoder | None:
        """Decodes an object with "columns"."""
        columns = self._struct([list[column.decoded] for column in self._plain])  # type: ignore[name-defined]
        if columns is None:
            return None
        body = msgspec.defstruct("Body", [("columns", columns)], forbid_unknown_fields=True)
        return msgspec.json.Decoder(body)

    def _struct(self, types: Sequence[Any]) -> Any | None:
        """A struct with the signature's names; None where one of them can't be that of a struct's
        field, as one with a quotation mark."""
        fields = [(_member(i), type_) for i, type_ in enumerate(types)]
        names = {_member(i): name for i, name in enumerate(self._names)}
        try:
            # Lists of plain values are in no cycles, and there may be a great many structs.
            return msgspec.defstruct(
                "Plain", fields, rename=names, forbid_unknown_fields=True, gc=False
            )
        except ValueError:
            return None

    def of_rows(self, rows: list[Any]) -> Frame | None:
        """The same of JSON's values."""
        if not rows:
            return None
        try:
            cells = list(map(self._cells, rows))
        except (KeyError, TypeError):
            return None
        if set(map(len, rows)) != {len(self._plain)}:
            return None
        by_column = zip(*cells, strict=True) if len(self._plain) > 1 else (cells,)
        return self._framed(by_column, len(rows))

    def of_columns(self, columns: Mapping[str, Any], rows: int) -> Frame | None:
        """The same of lists by their columns' names."""
        if not rows or len(columns) != len(self._plain):
            return None
        try:
            by_column = self._cells(columns)
        except KeyError:
            return None
        lists = by_column if len(self._plain) > 1 else (by_column,)
        if any(type(each) is not list or len(each) != rows for each in lists):
            return None
        return self._framed(lists, rows)

    def _framed(
        self, by_column: Iterable[Sequence[Any]], rows: int, *, are_decoded: bool = False
    ) -> Frame | None:
        """The frame of each column's values, which have their types checked where they
        `are_decoded`."""
        found = []
        for plain, values in zip(self._plain, by_column, strict=True):
            column = plain.of_types(values) if are_decoded else plain.read(values)
            if column is None:
                return None
            found.append(column)
        return Frame(
            layout="table", names=self._labels, columns=tuple(found), rows=rows, key=self._key
        )


def _member(number: int) -> str:
    return f"f{number}"


def _decoded(decoder: _Decoder | None, body: bytes) -> Any | None:
    try:
        return None if decoder is None else decoder.decode(body)
    except msgspec.DecodeError:
        return None


def plain_column(type_: Type) -> PlainColumn | None:
    """How columns of the type are made; None where its values aren't plain."""
    match type_:
        case Scalar("double" | "float" as kind):
            return PlainColumn(frozenset((float, int)), float, _floats(kind))
        case Scalar("integer" | "long" as kind):
            return PlainColumn(frozenset((int,)), int, _integers(kind))
        case Scalar("boolean"):
            return PlainColumn(frozenset((bool,)), bool, _booleans)
        case Scalar("string") | TextOrTexts():
            return PlainColumn(frozenset((str,)), str, list)
        case _:
            return None


def _floats(kind: str) -> Callable[[Sequence[Any]], Column | None]:
    bound, dtype = float_bound(kind), COLUMN_DTYPES[kind]

    def of_types(values: Sequence[Any]) -> Column | None:
        try:
            column = np.fromiter(values, np.float64, len(values))
        except OverflowError:  # a whole number of hundreds of digits
            return None
        # NumPy is the faster one only where there is much to look at.
        few = len(values) <= _FEW
        least, most = (min(values), max(values)) if few else (column.min(), column.max())
        # What was rounded to the bound may have been beyond it.
        if not -bound < least <= most < bound:
            return None
        return column.astype(dtype, copy=False)

    return of_types


def _integers(kind: str) -> Callable[[Sequence[Any]], Column | None]:
    low, high = integer_bounds(kind)

    def of_types(values: Sequence[Any]) -> Column | None:
        if min(values) < low or max(values) > high:
            return None
        return np.array(values, dtype=COLUMN_DTYPES[kind])

    return of_types


def _booleans(values: Sequence[Any]) -> Column:
    return np.array(values, dtype=np.bool_)
