"""Columns by name, from whatever isn't a list of JSON rows, -> checked columns of the contract.

Owns the same rules as `validation`, a column at a time: arrays of numbers are compared as a whole,
everything else goes through the same validators. No row is made. What the columns become on their
way to the model is `frames`' matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from pydantic_core import SchemaValidator, ValidationError

from gateway.contract import validation
from gateway.contract.encoding import COLUMN_DTYPES
from gateway.contract.plain_table import PlainColumn, plain_column
from gateway.contract.text_formats import are_in_range, pointer
from gateway.contract.types import (
    AnyValue,
    Field,
    Rows,
    Scalar,
    TensorOf,
    Type,
    float_bound,
    integer_bounds,
)
from gateway.contract.validation import Path
from gateway.errors import InvalidInput, Violation

Column: TypeAlias = np.ndarray | list[Any]
"""The cells of all rows, or a tensor with a row for each index of its first dimension: an array, a
masked one where some are null, or a list of Python's values (None, bool, int, float, str, bytes,
np.datetime64, list, dict). A NaN is a number and no null."""

_NUMBERS_AND_NULL = {float, int, type(None)}
_PIECE = 1_000
_ENOUGH = InvalidInput.MAX_VIOLATIONS
_MISSING = "Required, and missing."
_UNKNOWN = "Unknown: the model's signature has no such member."
_WIDEST = 2.0**64  # above all whole numbers of 64 bits
_NULLABLE = ("float", "double", "string", "datetime")


class Places:
    """Where in the request cells and columns are, for the pointers; a form of body with places of
    its own has a subclass. It travels to another process: plain, and of a module that may be
    imported there."""

    params: Path = ("params",)

    def cell(self, name: str, row: int) -> Path:
        """A row's cell of a column."""
        return ("rows", row, name)

    def column(self, name: str) -> Path:
        """A column, and where one that is missing would be."""
        return ("columns", name)

    def place(self, row: int | None, name: str) -> Path:
        """See `frames.Place`."""
        return self.column(name) if row is None else self.cell(name, row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What came: columns by name, and params, neither of them checked.

    Where the signature has no names, columns are taken by their position. `as_mlflow` takes what
    MLflow's enforcement takes of a DataFrame and the contract refuses in JSON: columns that the
    signature hasn't are dropped, and null is taken where the type has a NaN, a NaT or None for it.
    A `bare` one is no table: its only column is the rows themselves, for who has no signature.
    """

    columns: Mapping[str, Column]
    rows: int
    params: Mapping[str, Any] = field(default_factory=dict)
    places: Places = field(default_factory=Places)
    as_mlflow: bool = False
    bare: bool = False


class _Refused(Exception):
    """A column (the message), or cells of it (row and path within it, message), don't fit."""

    def __init__(self, found: str | tuple[tuple[Path, str], ...]) -> None:
        super().__init__()
        self.found = (((), found),) if isinstance(found, str) else found


class ColumnChecker:
    """Checks tables of one contract."""

    def __init__(self, accepted: Rows) -> None:
        self._accepted = accepted
        self._cells = {each.name: _Cells(each) for each in accepted.fields}
        self._cells_of_mlflow = {
            each.name: _Cells(_as_mlflow(each), infinite=True) for each in accepted.fields
        }

    def checked(self, table: Table) -> tuple[dict[str, Column], list[Violation]]:
        """The columns by their fields' names, as `Framer.framed` takes them; and what is wrong.

        An optional column that is absent isn't among them.
        """
        columns, found = self._matched(table)
        cells = self._cells_of_mlflow if table.as_mlflow else self._cells
        checked: dict[str, Column] = {}
        for name, (given, column) in columns.items():
            try:
                checked[name] = cells[name].checked(column, table.rows)
            except _Refused as refusal:
                found += [_violation(table.places, given, path, m) for path, m in refusal.found]
        return checked, found

    def _matched(self, table: Table) -> tuple[dict[str, tuple[str, Column]], list[Violation]]:
        """Each field's column with the name that it came by."""
        if not self._accepted.named:
            return self._by_position(table)
        fields, found = self._accepted.fields, []
        columns: dict[str, tuple[str, Column]] = {}
        for each in fields:
            if each.name in table.columns:
                columns[each.name] = (each.name, table.columns[each.name])
            elif each.required:
                found.append(_violation(table.places, each.name, (), _MISSING))
        if not table.as_mlflow:
            known = {each.name for each in fields}
            strangers = [name for name in table.columns if name not in known][:_ENOUGH]
            found += [_violation(table.places, name, (), _UNKNOWN) for name in strangers]
        return columns, found

    def _by_position(self, table: Table) -> tuple[dict[str, tuple[str, Column]], list[Violation]]:
        fields, given = self._accepted.fields, list(table.columns.items())
        if len(fields) == 1 and len(given) > 1:
            joined = _as_tensor(fields[0].type, [column for _, column in given])
            if joined is not None:
                return {fields[0].name: (given[0][0], joined)}, []
        if len(given) != len(fields):
            message = f"Expected {len(fields)} columns."
            name = given[-1][0] if given else fields[0].name
            return {}, [_violation(table.places, name, (), message)]
        return {each.name: column for each, column in zip(fields, given, strict=True)}, []


def _as_tensor(type_: Type, columns: list[Column]) -> Column | None:
    """Columns of numbers as the rows of a tensor of that width, which is how MLflow takes a
    DataFrame for a model that wants an array."""
    if not isinstance(type_, TensorOf) or len(type_.inner) != 1:
        return None
    arrays = [_numbers(column) for column in columns]
    if any(array is None or len(array) != len(columns[0]) for array in arrays):
        return None
    return np.column_stack([array for array in arrays if array is not None])


def _numbers(column: Column) -> np.ndarray | None:
    """A column of numbers without nulls."""
    if isinstance(column, list):
        column = np.array(column) if set(map(type, column)) <= {int, float} else np.empty(0, "O")
    plain = column.ndim == 1 and column.dtype.kind in "biuf"
    return column if plain and not isinstance(column, np.ma.MaskedArray) else None


def _as_mlflow(each: Field) -> Field:
    is_scalar = isinstance(each.type, Scalar) and each.type.kind in _NULLABLE
    is_nullable = is_scalar or isinstance(each.type, AnyValue)
    return replace(each, required=False) if is_nullable else each


def _violation(places: Places, name: str, path: Path, message: str) -> Violation:
    if not path:
        return Violation(pointer=pointer(places.column(name)), message=message)
    row, *inner = path
    return Violation(pointer=pointer((*places.cell(name, int(row)), *inner)), message=message)


class _Cells:
    """Checks a column of one field; lists may have infinities where `infinite`, arrays always."""

    def __init__(self, each: Field, *, infinite: bool = False) -> None:
        self._field = each
        self._infinite = infinite
        self._dtype = _dtype_of(each.type)
        self._is_tensor = isinstance(each.type, TensorOf)

    def checked(self, column: Column, rows: int) -> Column:
        """Lists of validated values, or an array of the field's dtype; raises _Refused."""
        if isinstance(column, np.ndarray):
            column = _shaped(column, self._field.type)
        if len(column) != rows:
            raise _Refused(f"Expected {rows} values.")
        column = self._as_array(column)
        if not isinstance(column, np.ndarray):
            return self._validated(column)
        values, gone = _unmasked(column)
        fit: Any = None if self._dtype is None else _fitting(values, self._dtype)
        if self._dtype is None or fit is None:
            return self._validated(_listed(values, gone))
        if gone is not None:
            fit = fit & ~gone if self._field.required else fit | gone
        if not fit.all():
            raise self._refusal(values, gone, np.flatnonzero(~_by_row(fit)))
        return _filled(values, gone, self._dtype)

    def _as_array(self, column: Column) -> Column:
        """A list of numbers and nulls for a field of fractions, in which NaN is a number."""
        fractions = self._dtype is not None and self._dtype.kind == "f"
        if (
            isinstance(column, np.ndarray)
            or not fractions
            or isinstance(self._field.type, TensorOf)
        ):
            return column
        kinds = set(map(type, column))
        if not kinds <= _NUMBERS_AND_NULL:
            return column
        try:
            values = np.array(column, np.float64)
        except OverflowError:  # a whole number of hundreds of digits
            return column
        if not self._infinite and np.isinf(values).any():  # JSON's 1e400
            return column
        if type(None) not in kinds:
            return values
        return np.ma.MaskedArray(values, [value is None for value in column])

    @cached_property
    def _validator(self) -> SchemaValidator:
        return validation.column_validator(self._field)

    @cached_property
    def _plain(self) -> PlainColumn | None:
        return plain_column(self._field.type)

    def _refusal(self, values: np.ndarray, gone: np.ndarray | None, places: np.ndarray) -> _Refused:
        """What is expected of the cells at these places, in the validators' own words."""
        places = places[: _ENOUGH + 1]
        cells = _listed(values[places], None if gone is None else gone[places])
        found: list[tuple[Path, str]] = []
        for row, cell in zip(places.tolist(), cells, strict=True):
            try:
                self._validator.validate_python([cell])
            except ValidationError as error:
                found += validation.located(error, row)
        return _Refused(tuple(found))

    def _validated(self, column: list[Any]) -> Column:
        plain = None if self._plain is None or not column else self._plain.read(column)
        if plain is not None:
            return plain
        values: list[Any] = []
        found: list[tuple[Path, str]] = []
        for start in range(0, len(column), _PIECE):
            try:
                values += self._validator.validate_python(column[start : start + _PIECE])
            except ValidationError as error:
                found += validation.located(error, start)
            if len(found) >= _ENOUGH:
                break
        if found:
            raise _Refused(tuple(found))
        return values


def _unmasked(column: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The values, and which of them are null; NaT is one too."""
    gone: Any = None
    if isinstance(column, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(column)
        column, gone = np.asarray(column.data), mask if mask.any() else None
    if column.dtype.kind == "M":
        unset = np.isnat(column)
        if unset.any():
            gone = unset if gone is None else gone | unset
    return column, gone


def _dtype_of(type_: Type) -> np.dtype[Any] | None:
    """What an array of the type is made of; None where no array of numbers or moments is."""
    if isinstance(type_, TensorOf):
        return type_.dtype if type_.dtype.kind in "biufM" else None
    return COLUMN_DTYPES.get(type_.kind) if isinstance(type_, Scalar) else None


def _shaped(column: np.ndarray, type_: Type) -> np.ndarray:
    """A column of numbers with one in each row is the same as one of them; raises _Refused for
    other shapes than the type's."""
    if isinstance(type_, TensorOf):
        inner = type_.inner
    elif isinstance(type_, Scalar):
        inner = ()
    else:
        return column
    rows = len(column) if column.ndim else 0
    if len(inner) < column.ndim - 1 == 1 and column.shape[1] == 1:
        column = column.reshape(rows)
    elif inner == (1,) and column.ndim == 1:
        column = column.reshape(rows, 1)
    fits = column.ndim == 1 + len(inner) and all(
        want in (-1, have) for want, have in zip(inner, column.shape[1:], strict=True)
    )
    if not fits:
        raise _Refused(f"Expected the shape {[-1, *inner]}.")
    return column


def _fitting(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray | None:
    """Of each element whether it is one of the dtype without loss; None where the values are of
    another sort altogether."""
    sort = values.dtype.kind
    everything = np.broadcast_to(np.True_, values.shape)
    match dtype.kind:
        case "b":
            return everything if sort == "b" else None
        case "M":
            return are_in_range(values) if sort == "M" else None
        case "f" if sort in "iuf":
            bound = float_bound(dtype.name)
            if np.can_cast(values.dtype, dtype) or (sort in "iu" and bound > _WIDEST):
                return everything
            too_large: np.ndarray = np.isfinite(values) & (np.abs(values) > bound)
            return ~too_large
        case "i" | "u" if sort in "iu":
            return everything if np.can_cast(values.dtype, dtype) else _whole(values, dtype)
        case "i" | "u" if sort == "f":
            return _whole(values, dtype)
    return None


def _whole(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Whether each is a whole number within the dtype's bounds."""
    low, high = integer_bounds(dtype.name)
    if values.dtype.kind in "iu":
        least, most = integer_bounds(values.dtype.name)
        fit: Any = np.ones(values.shape, np.bool_)
        if low > least:
            fit &= values >= low
        if high < most:
            fit &= values <= high
        return np.asarray(fit)
    wide = values.astype(np.float64)
    # A bound that no float is equal to is the next power of two, which is beyond it.
    in_range = (wide >= float(low)) & (wide < float(high + 1))
    whole: np.ndarray = in_range & (wide == np.floor(wide))
    return whole


def _by_row(fit: np.ndarray) -> np.ndarray:
    return fit if fit.ndim == 1 else np.asarray(fit.reshape(len(fit), -1).all(axis=1))


def _filled(values: np.ndarray, gone: np.ndarray | None, dtype: np.dtype[Any]) -> Column:
    """In the dtype, with NaN or NaT for null; where there is neither, as a list with None."""
    if gone is None:
        return values.astype(dtype, copy=False)
    if dtype.kind in "fM":
        made = values.astype(dtype)
        made[gone] = np.nan if dtype.kind == "f" else np.datetime64("NaT")
        return made
    return [None if g else v for v, g in zip(values.tolist(), gone.tolist(), strict=True)]


def _listed(values: np.ndarray, gone: np.ndarray | None) -> list[Any]:
    plain = list(values) if values.dtype.kind == "M" else values.tolist()
    if gone is None:
        return plain
    if gone.ndim > 1:
        gone = np.asarray(gone.reshape(len(gone), -1).any(axis=1))
    return [None if g else v for v, g in zip(plain, gone.tolist(), strict=True)]
