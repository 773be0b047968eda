"""One column in its several forms: bare values, or lists of one value each.

A table of one column, a flat array and an array of shape (-1, 1) say the same, and models give
whichever is at hand: MLflow's flavors for PyTorch and Keras answer a table with a table, where the
signature says a tensor.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gateway.contract.coercion import Column
from gateway.contract.types import TensorOf, Type, takes_lists


def of_one_column(column: Column, type_: Type) -> Column:
    """The column with its values as the type has them: bare, or within a list."""
    if isinstance(type_, TensorOf) and set(type_.inner) == {1}:
        return _within_lists(column, len(type_.inner)) if _is_bare(column) else column
    return column if takes_lists(type_) else _bare(column)


def _is_bare(column: Column) -> bool:
    if isinstance(column, np.ndarray):
        return column.ndim == 1 and column.dtype.kind != "O"
    return not any(map(_is_list, column))


def _within_lists(column: Column, depth: int) -> Column:
    if isinstance(column, np.ndarray):
        return column.reshape(-1, *[1] * depth)
    values: list[Any] = list(column)
    for _ in range(depth):
        values = [[value] for value in values]
    return values


def _bare(column: Column) -> Column:
    """Without the lists of one that all values are in."""
    if isinstance(column, np.ndarray):
        return column[:, 0] if column.ndim == 2 and column.shape[1] == 1 else column
    if len(column) > 0 and all(_is_list(value) and len(value) == 1 for value in column):
        return [value[0] for value in column]
    return column


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)
