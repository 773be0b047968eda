"""Values a model gave -> values JSON can say, strictly of the declared types.

Lossless casts pass (an integral float for a long, an int for a double, numpy's scalars for
Python's); everything else raises `Unfit`. Works on whole columns, so that numpy columns of plain
numbers never become a loop. NaN and infinities stay floats: orjson writes them as null.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import orjson

from gateway.contract.text_formats import write_base64, write_datetimes, write_moment
from gateway.contract.types import (
    SCALAR_KINDS,
    AnyValue,
    ArrayOf,
    Field,
    MapOf,
    ObjectOf,
    Scalar,
    TensorOf,
    TextOrTexts,
    TupleOf,
    Type,
    float_bound,
    integer_bounds,
)

Column = np.ndarray | list[Any]
# orjson writes whole numbers of 64 bits; JSON has larger ones.
_ORJSON_MIN, _ORJSON_MAX = -(2**63), 2**64 - 1
# A column of length n -> n values for orjson.
Coercer = Callable[[Column], list[Any]]


class Unfit(Exception):
    """A value is not of the declared type."""


def coercer(type_: Type, *, optional: bool = False) -> Coercer:
    """The coercer of columns of the type; in an optional one what is missing becomes None."""
    coerce = _coercer(type_)
    return _skipping_missing(coerce) if optional else coerce


def missing(value: object) -> bool:
    """Whether the value is None or one of the ways of pandas to say so (NaN, NaT, NA)."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, np.datetime64):
        return bool(np.isnat(value))
    return isinstance(value, float | np.floating) and bool(value != value)


def items_of(column: Any) -> list[Any]:
    """The elements of a list, a tuple or an array, as they are."""
    if isinstance(column, list):
        return column
    if isinstance(column, tuple) or (isinstance(column, np.ndarray) and column.ndim > 0):
        return list(column)
    raise Unfit


def _skipping_missing(coerce: Coercer) -> Coercer:
    def run(column: Column) -> list[Any]:
        if isinstance(column, np.ndarray) and column.dtype.kind in "biu":
            return coerce(column)
        values = items_of(column)
        gone = [missing(value) for value in values]
        if not any(gone):
            return coerce(column)
        present = iter(coerce([v for v, m in zip(values, gone, strict=True) if not m]))
        return [None if m else next(present) for m in gone]

    return run


def _coercer(type_: Type) -> Coercer:
    match type_:
        case TextOrTexts():  # of inputs alone
            raise AssertionError("no output is declared as that")
        case Scalar(kind):
            return _scalars(kind)
        case ArrayOf(items, gaps):
            return _each(coercer(items, optional=gaps))
        case TupleOf(items):
            return _tuples([coercer(item) for item in items])
        case MapOf(values, gaps):
            return _maps(coercer(values, optional=gaps))
        case ObjectOf(fields, extras):
            return _objects(fields, open_=extras == "kept")
        case AnyValue():
            return anythings
        case TensorOf():
            return _tensors(type_)


def _scalars(kind: str) -> Coercer:
    match kind:
        case "boolean":
            return _booleans
        case "integer" | "long":
            return _integers(kind)
        case "float" | "double":
            return _floats(kind)
        case "string":
            return _texts
        case "binary":
            return lambda column: [_binary(value) for value in items_of(column)]
        case _:
            return _datetimes


def _booleans(column: Column) -> list[Any]:
    if isinstance(column, np.ndarray) and column.dtype.kind == "b" and column.ndim == 1:
        return list(column.tolist())
    values = items_of(column)
    if not all(isinstance(value, bool | np.bool_) for value in values):
        raise Unfit
    return [bool(value) for value in values]


def _integers(kind: str) -> Coercer:
    low, high = integer_bounds(kind)

    def run(column: Column) -> list[Any]:
        if isinstance(column, np.ndarray) and column.dtype.kind in "iu" and column.ndim == 1:
            if column.size and not (low <= int(column.min()) and int(column.max()) <= high):
                raise Unfit
            return list(column.tolist())
        return [_integer(value, low, high) for value in items_of(column)]

    return run


def _integer(value: Any, low: int, high: int) -> int:
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise Unfit
    if not low <= value <= high:
        raise Unfit
    return int(value)


def _floats(kind: str) -> Coercer:
    """float32 arrays keep their type: orjson then writes their own shortest text (0.1)."""
    bound = float_bound(kind)

    def run(column: Column) -> list[Any]:
        if isinstance(column, np.ndarray) and column.ndim == 1:
            if column.dtype == np.float32:
                return _within(column, bound)
            if column.dtype.kind in "fiu":
                return _within(column.astype(np.float64), bound)
        return [_float(value, bound) for value in items_of(column)]

    return run


def _within(column: np.ndarray, bound: float) -> list[Any]:
    _require_bound(column, bound)
    return list(column) if column.dtype == np.float32 else column.tolist()


def _require_bound(column: np.ndarray, bound: float) -> None:
    if column.dtype != np.float64 or bound < np.finfo(np.float64).max:
        sizes = np.abs(column[np.isfinite(column)])
        if sizes.size and float(sizes.max()) > bound:
            raise Unfit


def numbers(column: Column, type_: Type) -> np.ndarray | None:
    """An array of numbers or truth values that is one of the declared type as it is: what the
    type's coercer makes of it, but no list. None for all else; raises Unfit."""
    if not isinstance(type_, Scalar) or not isinstance(column, np.ndarray) or column.ndim != 1:
        return None
    match type_.kind:
        case "boolean":
            return column if column.dtype.kind == "b" else None
        case "integer" | "long" if column.dtype.kind in "iu":
            low, high = integer_bounds(type_.kind)
            if column.size and not (low <= int(column.min()) and int(column.max()) <= high):
                raise Unfit
            return column
        case "float" | "double" if column.dtype.kind in "fiu":
            narrow = column.dtype == np.float32
            column = column if narrow else column.astype(np.float64, copy=False)
            _require_bound(column, float_bound(type_.kind))
            return column
    return None


def _float(value: Any, bound: float) -> Any:
    if missing(value):
        return None
    if isinstance(value, bool) or not isinstance(value, float | int | np.floating | np.integer):
        raise Unfit
    try:
        number = float(value)
    except OverflowError:
        raise Unfit from None
    if np.isfinite(number) and abs(number) > bound:
        raise Unfit
    return value if isinstance(value, np.float32) else number


def _texts(column: Column) -> list[Any]:
    values = items_of(column)
    if set(map(type, values)) == {str}:
        return values
    return [_text(value) for value in values]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Unfit
    return str(value)


def _binary(value: Any) -> str:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise Unfit
    return write_base64(bytes(value))


def _datetimes(column: Column) -> list[Any]:
    try:
        if isinstance(column, np.ndarray) and column.dtype.kind == "M" and column.ndim == 1:
            texts = write_datetimes(column)
        else:
            texts = write_datetimes(_moments(items_of(column)))
    except (ValueError, OverflowError):  # a year that no request could send, or datetime's end
        raise Unfit from None
    if None in texts:
        raise Unfit
    return list(texts)


def _moments(values: list[Any]) -> np.ndarray:
    if set(map(type, values)) == {dt.datetime}:
        return np.array(list(map(_naive, values)), dtype="M8[us]")
    return np.array(list(map(_moment, values)), dtype="M8[ns]")


def _naive(value: dt.datetime) -> dt.datetime:
    return value if value.tzinfo is None else value.astimezone(dt.UTC).replace(tzinfo=None)


def _moment(value: Any) -> np.datetime64:
    """As naive UTC. A pandas Timestamp is a datetime whose nanoseconds only numpy sees."""
    if isinstance(value, dt.datetime):
        value = _naive(value)
    if hasattr(value, "to_datetime64"):
        value = value.to_datetime64()
    if isinstance(value, dt.date):
        value = np.datetime64(value)
    if not isinstance(value, np.datetime64):
        raise Unfit
    write_datetimes(np.array([value]))  # before nanoseconds, in which far years wrap around
    moment: np.datetime64 = value.astype("M8[ns]")
    return moment


def _each(coerce: Coercer) -> Coercer:
    return lambda column: [coerce(_sequence(value)) for value in items_of(column)]


def _sequence(value: Any) -> Column:
    return value if isinstance(value, list | np.ndarray) else items_of(value)


def _tuples(coercers: list[Coercer]) -> Coercer:
    def one(value: Any) -> list[Any]:
        values = items_of(value)
        if len(values) != len(coercers):
            raise Unfit
        return [coerce([v])[0] for coerce, v in zip(coercers, values, strict=True)]

    return lambda column: [one(value) for value in items_of(column)]


def _maps(coerce: Coercer) -> Coercer:
    def one(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise Unfit
        return dict(zip(map(str, value), coerce(list(value.values())), strict=True))

    return lambda column: [one(value) for value in items_of(column)]


def _objects(fields: tuple[Field, ...], *, open_: bool) -> Coercer:
    """An optional member that is absent stays absent; undeclared ones stay in an open object."""
    coercers = [(f.name, f.required, coercer(f.type, optional=not f.required)) for f in fields]
    declared = {f.name for f in fields}

    def one(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise Unfit
        if any(required and name not in value for name, required, _ in coercers):
            raise Unfit
        made = {name: to([value[name]])[0] for name, _, to in coercers if name in value}
        if open_ and len(value) > len(made):
            more = ((_key(name), item) for name, item in value.items())
            made.update((name, anything(item)) for name, item in more if name not in declared)
        return made

    return lambda column: [one(value) for value in items_of(column)]


def _tensors(type_: TensorOf) -> Coercer:
    inner = type_.inner
    coerce = _elements(type_)

    def nested(values: Any, sizes: tuple[int, ...]) -> list[Any]:
        column = _sequence(values)
        if not sizes:
            return coerce(column)
        rows = [nested(row, sizes[1:]) for row in column]
        if any(sizes[0] not in (-1, len(row)) for row in rows):
            raise Unfit
        return rows

    def run(column: Column) -> list[Any]:
        if _goes_as_it_is(column, type_):
            return list(np.ascontiguousarray(column))
        return nested(column, inner)

    return run


def _elements(type_: TensorOf) -> Coercer:
    match type_.dtype.kind:
        case "i" | "u":
            return _integers(type_.dtype.name)
        case "f":
            return _floats(type_.dtype.name)
        case "O":
            return coercer(AnyValue())
        case kind:
            return _scalars(SCALAR_KINDS[kind])


def _goes_as_it_is(column: Column, type_: TensorOf) -> bool:
    """Whether orjson can write the rows of this array without a look at their elements."""
    return (
        isinstance(column, np.ndarray)
        and column.dtype == type_.dtype
        and column.dtype.kind in "biuf"
        and column.ndim == len(type_.shape)
        and all(
            want in (-1, have) for want, have in zip(type_.inner, column.shape[1:], strict=True)
        )
    )


def anythings(column: Column) -> list[Any]:
    """A column of undeclared values."""
    values = column if isinstance(column, np.ndarray) and column.ndim else items_of(column)
    return list(anything(values))


def anything(value: Any) -> Any:
    """Whatever JSON can say of an undeclared value; what it can't is left for orjson to refuse."""
    if value is None or type(value) in (str, float, bool):
        return value
    if type(value) is int:
        return value if _ORJSON_MIN <= value <= _ORJSON_MAX else orjson.Fragment(b"%d" % value)
    if isinstance(value, Mapping):
        return {_key(key): anything(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [anything(item) for item in value]
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64 | np.bytes_):
        return anything(value.item()) if value.dtype.kind in "biufU" else value
    return _special(value)


def _array(value: np.ndarray) -> Any:
    if value.dtype.kind == "m":  # a length of time, which numpy would write as some number
        raise Unfit
    if value.dtype.kind in "biufU":
        return value.tolist()
    return anything(list(value) if value.dtype.kind == "M" and value.ndim else value.tolist())


def _special(value: Any) -> Any:
    if missing(value):
        return None
    if isinstance(value, bytes | bytearray):
        return _binary(value)
    return _as_text(value) if isinstance(value, np.datetime64 | dt.datetime) else value


def _as_text(moment: np.datetime64 | dt.datetime) -> str:
    try:
        return write_moment(moment)
    except (ValueError, OverflowError):
        raise Unfit from None


def _key(key: Any) -> str:
    """A member's name; numbers and booleans as JSON writes them."""
    if isinstance(key, np.generic):
        key = key.item()
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, str | int | float):
        return str(key)
    raise Unfit
