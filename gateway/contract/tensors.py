"""Rows of nested lists <-> ndarrays of an exact dtype, for signatures made of tensors."""

from __future__ import annotations

from itertools import chain
from math import prod
from typing import Any

import numpy as np

from gateway.contract.types import TensorOf, Type

_ZEROS_AT_MOST = 10_000_000


def row_shape(value: Any, dimensions: int) -> tuple[int, ...] | None:
    """The shape of nested lists that are `dimensions` deep; None where they are ragged."""
    shape: list[int] = []
    level = [value]
    while len(shape) < dimensions:  # level by level: no step in Python for each of millions
        if shape:
            level = list(chain.from_iterable(level))
        sizes = set(map(len, level))
        if len(sizes) != 1 or 0 in sizes:
            return None
        shape += sizes
    return tuple(shape)


def stack(rows: list[Any], type_: Type) -> np.ndarray:
    """The rows, which have one shape, as one array of the tensor's exact dtype."""
    assert isinstance(type_, TensorOf)
    match type_.dtype.kind:
        case "O":
            return _objects(rows, len(type_.inner))
        case "M":  # values are in nanoseconds; a coarser unit cuts them
            return np.array(rows, dtype="M8[ns]").astype(type_.dtype)
        case _:
            return np.array(rows, dtype=type_.dtype)


def zeros(type_: Type, rows: int) -> np.ndarray | None:
    """So many rows of the smallest shape that are 0, empty or false; None where there is no such
    thing, or it would have more than ten million elements."""
    if not isinstance(type_, TensorOf) or type_.dtype.kind == "O":
        return None
    shape = (rows, *(max(size, 1) for size in type_.inner))
    return np.zeros(shape, type_.dtype) if prod(shape) <= _ZEROS_AT_MOST else None


def _objects(rows: list[Any], dimensions: int) -> np.ndarray:
    """An array of Python values, each of which may be a list itself: so numpy must not look."""
    shape = [len(rows)]
    values = rows
    for _ in range(dimensions):
        shape.append(len(values[0]))
        values = [item for value in values for item in value]
    return np.fromiter(values, dtype=object, count=len(values)).reshape(shape)
