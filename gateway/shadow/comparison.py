"""Two answers to the same rows, column by column: which rows differ, and numbers by how much.

The rules: numbers are equal within a relative tolerance, NaN (and null in a column of numbers)
equals NaN, infinities only themselves. Texts, moments and truth values are equal or not, and nested
values are where all that is in them is. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

TOLERANCE = 1e-6
"""How far numbers with a fraction may be from each other where no tag says so: what another order
of the same sums makes of numbers of 32 bits. Whole numbers, which may be ids, are compared exactly
then."""

_AT_ONCE = 48  # fewer are compared sooner one by one
_REAL = (float, int, np.floating, np.integer)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedColumn:
    """A column of both answers: the rows that differ, and of numbers the shadow's less the
    default's, where both are finite."""

    name: str
    rows: int
    different: Sequence[int]
    differences: np.ndarray | Sequence[float] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Both answers to one request."""

    columns: tuple[ComparedColumn, ...]

    @property
    def different(self) -> list[int]:
        """The rows that differ in any column."""
        return sorted({row for column in self.columns for row in column.different})


def compare(
    default: Mapping[str, Sequence[Any]],
    shadow: Mapping[str, Sequence[Any]],
    tolerance: float | None,
) -> Compared:
    """Both answers, by the columns that either has. Where one has more rows all of them differ."""
    return Compared(
        columns=tuple(
            _column(name, default.get(name), shadow.get(name), tolerance)
            for name in dict.fromkeys((*default, *shadow))
        )
    )


def _column(
    name: str, first: Sequence[Any] | None, second: Sequence[Any] | None, tolerance: float | None
) -> ComparedColumn:
    if first is None or second is None or len(first) != len(second):
        rows = max(len(first or ()), len(second or ()))
        return ComparedColumn(name=name, rows=rows, different=range(rows))
    rows = len(first)
    if rows >= _AT_ONCE and _are_floats(first) and _are_floats(second):
        return _floats(name, np.array(first), np.array(second), tolerance)
    different = [
        row
        for row, (a, b) in enumerate(zip(first, second, strict=True))
        if not are_equal(a, b, tolerance)
    ]
    differences = [
        each for each in map(_difference, first, second) if each is not None and math.isfinite(each)
    ]
    return ComparedColumn(name=name, rows=rows, different=different, differences=differences)


def _are_floats(values: Sequence[Any]) -> bool:
    return set(map(type, values)) <= {float, np.float32, np.float64}


def _floats(
    name: str, first: np.ndarray, second: np.ndarray, tolerance: float | None
) -> ComparedColumn:
    a, b = first.astype(np.float64), second.astype(np.float64)
    equal = _are_near(a, b, tolerance)
    with np.errstate(invalid="ignore", over="ignore"):
        differences = b - a
    return ComparedColumn(
        name=name,
        rows=len(a),
        different=np.flatnonzero(~equal).tolist(),
        differences=differences[np.isfinite(differences)],
    )


def _are_near(a: np.ndarray, b: np.ndarray, tolerance: float | None) -> np.ndarray:
    limit = TOLERANCE if tolerance is None else tolerance
    with np.errstate(invalid="ignore", over="ignore"):
        near = np.abs(a - b) <= limit * np.maximum(np.abs(a), np.abs(b))
    near &= np.isfinite(a) & np.isfinite(b)
    found: np.ndarray = near | (a == b) | (np.isnan(a) & np.isnan(b))
    return found


def are_equal(a: Any, b: Any, tolerance: float | None = None) -> bool:
    """Whether two values of answers are equal by the rules above."""
    if _is_number(a) and _is_number(b):
        return _are_equal_numbers(a, b, tolerance)
    if a is None or b is None:
        return _is_missing(a) and _is_missing(b)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return _are_equal_arrays(a, b, tolerance)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(are_equal(a[k], b[k], tolerance) for k in a)
    if _is_list(a) and _is_list(b):
        return len(a) == len(b) and all(map(lambda x, y: are_equal(x, y, tolerance), a, b))
    if isinstance(a, orjson.Fragment) or isinstance(b, orjson.Fragment):
        return _written(a) == _written(b)
    return isinstance(a, bool | np.bool_) == isinstance(b, bool | np.bool_) and bool(a == b)


def _written(value: Any) -> bytes:
    """A whole number of more bits than orjson has, which is a text already, as it is sent."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _is_number(value: Any) -> bool:
    return isinstance(value, _REAL) and not isinstance(value, bool)


def _is_missing(value: Any) -> bool:
    return value is None or (_is_number(value) and bool(value != value))


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray)


def _are_equal_numbers(a: Any, b: Any, tolerance: float | None) -> bool:
    if a == b or (a != a and b != b):
        return True
    if tolerance is None:
        if isinstance(a, int | np.integer) and isinstance(b, int | np.integer):
            return False
        tolerance = TOLERANCE
    first, second = float(a), float(b)
    if not (math.isfinite(first) and math.isfinite(second)):
        return False
    return abs(first - second) <= tolerance * max(abs(first), abs(second))


def _are_equal_arrays(a: np.ndarray, b: np.ndarray, tolerance: float | None) -> bool:
    if a.shape != b.shape:
        return False
    if a.ndim == 0:
        return are_equal(a.item(), b.item(), tolerance)
    if a.dtype.kind == "f" and b.dtype.kind in "fiu":
        return bool(_are_near(a.astype(np.float64), b.astype(np.float64), tolerance).all())
    return all(map(lambda x, y: are_equal(x, y, tolerance), a.tolist(), b.tolist()))


def _difference(a: Any, b: Any) -> float | None:
    """How much more the second is, where both are numbers."""
    return float(b) - float(a) if _is_number(a) and _is_number(b) else None
