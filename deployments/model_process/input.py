"""The plain columns of a call -> the DataFrame, array or list that MLflow takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

_INDEXES = 128


def model_input(layout: str, names: tuple[Any, ...], columns: tuple[Any, ...]) -> Any:
    """What MLflow takes for a frame: a DataFrame, an array, named arrays, a list or a dict."""
    if layout == "table":
        return _table(names, columns)
    if layout == "tensors":
        return dict(zip(names, columns))
    if layout == "record":
        return dict(columns[0][0])  # a copy: MLflow's loaders take members out of it
    return columns[0]


def _table(names: tuple[Any, ...], columns: tuple[Any, ...]) -> pd.DataFrame:
    """Columns of one type as one block: a tenth of what pandas takes for a dict of them."""
    kinds = {column.dtype if isinstance(column, np.ndarray) else None for column in columns}
    if len(kinds) == 1 and None not in kinds:
        return pd.DataFrame(np.column_stack(columns), columns=_index(names))
    return pd.DataFrame({name: _series(column) for name, column in zip(names, columns)})


_indexes: dict[tuple[Any, ...], Any] = {}  # by names


def _index(names: tuple[Any, ...]) -> Any:
    found = _indexes.get(names)
    if found is None:
        if len(_indexes) >= _INDEXES:
            _indexes.clear()
        found = _indexes[names] = pd.Index(names)
    return found


def _series(column: Any) -> Any:
    """Lists stay lists of objects: pandas would look at all values to choose a type, and so let
    one row's neighbour turn its None into NaN or its whole number into a fraction."""
    return column if isinstance(column, np.ndarray) else pd.Series(column, dtype=object)
