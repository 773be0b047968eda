"""Rows of nested lists <-> ndarrays of an exact dtype, for signatures made of tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from gateway.contract.types import TensorOf, Type


def row_shape(value: Any, dimensions: int) -> tuple[int, ...] | None:
    """The shape of nested lists that are `dimensions` deep; None where they are ragged."""
    if dimensions == 0:
        return ()
    shapes = {row_shape(item, dimensions - 1) for item in value}
    if len(shapes) != 1 or None in shapes:
        return None
    (inner,) = shapes
    return None if inner is None else (len(value), *inner)


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


def _objects(rows: list[Any], dimensions: int) -> np.ndarray:
    """An array of Python values, each of which may be a list itself: so numpy must not look."""
    shape = [len(rows)]
    values = rows
    for _ in range(dimensions):
        shape.append(len(values[0]))
        values = [item for value in values for item in value]
    return np.fromiter(values, dtype=object, count=len(values)).reshape(shape)
