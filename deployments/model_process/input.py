"""The plain columns of a call -> the DataFrame, array or list that MLflow takes.

A DataFrame has the types that MLflow's own server gives its columns, in this process's pandas:
texts are pandas 3's `str`, and objects before; lists and bytes are objects. Columns of which no row
of a request has anything aren't there, as they aren't in MLflow's. But a model that was fitted to a
table finds all of its columns, null where nobody sent them: without one it can't answer at all, and
a row means the same to it alone and beside others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

_INDEXES = 128
IS_PANDAS_3 = int(pd.__version__.partition(".")[0]) >= 3
_FITTED_FLAVORS = frozenset(
    "mlflow." + name for name in ("catboost", "h2o", "lightgbm", "sklearn", "spark", "xgboost")
)
"""Of these a model is fitted to a table, and needs each of its columns."""

# A column of so many nulls, of the types that have one: of whole numbers MLflow takes none.
_NULLS: dict[str, Callable[[int], Any]] = {
    "double": lambda rows: np.full(rows, np.nan),
    "float": lambda rows: np.full(rows, np.nan, np.float32),
    "datetime": lambda rows: np.full(rows, np.datetime64("NaT"), "M8[ns]"),
    "string": lambda rows: [np.nan] * rows,
    "boolean": lambda rows: [None] * rows,
    "binary": lambda rows: [None] * rows,
}


class Inputs:
    """Makes what a model takes, by its input schema (MLflow's, None where it has none)."""

    def __init__(self, flavor: str | None, inputs: Any) -> None:
        self._fitted_to = {}
        if flavor in _FITTED_FLAVORS and inputs is not None and not inputs.is_tensor_spec():
            self._fitted_to = _optional_columns(inputs)

    @classmethod
    def of(cls, model: Any) -> Inputs:
        """For a model that MLflow has loaded."""
        pyfunc = (model.metadata.flavors or {}).get("python_function", {})
        return cls(pyfunc.get("loader_module"), model.metadata.get_input_schema())

    def made_of(self, layout: str, names: tuple[Any, ...], columns: tuple[Any, ...]) -> Any:
        """What the model takes for a frame."""
        if layout == "table" and self._fitted_to:
            for name, kind in self._fitted_to.items():
                if name not in names:
                    names = (*names, name)
                    columns = (*columns, _NULLS[kind](len(columns[0])))
        return model_input(layout, names, columns)


def _optional_columns(schema: Any) -> dict[Any, str]:
    """The names and kinds of columns that a row may lack, as far as they take a null."""
    if not schema.has_input_names() or not hasattr(schema, "optional_input_names"):
        return {}  # which columns may lack was no part of a signature before MLflow 2.5
    kinds = {spec.name: str(getattr(spec.type, "name", "")) for spec in schema.inputs}
    optional = schema.optional_input_names()
    return {name: kinds[name] for name in optional if kinds[name] in _NULLS}


def rows_of(frame: tuple[Any, ...]) -> int:
    """How many rows a frame has."""
    return len(frame[2][0])


def taken(frame: tuple[Any, ...], rows: tuple[int, ...]) -> tuple[Any, ...]:
    """A frame of the rows at those positions."""
    layout, names, columns = frame
    return layout, names, tuple(_taken(column, rows) for column in columns)


def _taken(column: Any, rows: tuple[int, ...]) -> Any:
    if isinstance(column, np.ndarray):
        return column[list(rows)]
    return [column[i] for i in rows]


def model_input(layout: str, names: tuple[Any, ...], columns: tuple[Any, ...]) -> Any:
    """What MLflow takes for a frame: a DataFrame, an array, named arrays, a list or a dict."""
    if layout == "table":
        return _table(names, columns)
    if layout == "records":
        return pd.DataFrame(columns[0])
    if layout == "tensors":
        return dict(zip(names, columns))
    if layout == "record":
        return dict(columns[0][0])  # a copy: MLflow's loaders take members out of it
    return columns[0]


def _table(names: tuple[Any, ...], columns: tuple[Any, ...]) -> pd.DataFrame:
    """Columns of one type as one block: a tenth of what pandas takes for a dict of them."""
    kinds = {column.dtype if isinstance(column, np.ndarray) else None for column in columns}
    if len(kinds) == 1 and None not in kinds:
        # Column by column in memory, as MLflow's own are: what a model computes of them is then the
        # same to the last bit.
        return pd.DataFrame(np.stack(columns).T, columns=_index(names))
    return pd.DataFrame({name: _series(column) for name, column in zip(names, columns)})


_indexes: dict[tuple[Any, ...], Any] = {}  # by names


def _index(names: tuple[Any, ...]) -> Any:
    if not IS_PANDAS_3:
        return pd.Index(names)  # a model may write into it
    found = _indexes.get(names)
    if found is None:
        if len(_indexes) >= _INDEXES:
            _indexes.clear()
        found = _indexes[names] = pd.Index(names)
    # One of its own for each table: a model may name it.
    return found.view()


def _series(column: Any) -> Any:
    """Lists of texts have this pandas's type of them, all others stay objects: pandas would look at
    all values to choose a type, and so let one row's neighbour turn its None into NaN or its whole
    number into a fraction."""
    if isinstance(column, np.ndarray):
        return column
    return pd.Series(column, dtype=type_of_texts() if _is_of_texts(column) else object)


@lru_cache(maxsize=1)
def type_of_texts() -> Any:
    """Asked once the model is loaded: it is an option of pandas, which a model may set."""
    return pd.Series(["a"]).dtype


def _is_of_texts(column: list[Any]) -> bool:
    """Whether it has texts only, and NaN where one is missing."""
    kinds = set(map(type, column))
    if kinds == {str}:
        return True
    return kinds <= {str, float} and all(type(value) is str or value != value for value in column)
