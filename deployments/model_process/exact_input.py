"""Tables that are exactly what a signature asks for already: past MLflow's enforcement of it.

MLflow makes a new table for each call, column by column, to have the signature's types: half of
what a lone small prediction costs. For columns that have those types it gives what it got
(`_enforce_mlflow_datatype` in mlflow/models/utils.py), so the model is asked without a signature
then, which is MLflow's own way not to enforce one. Whatever isn't exactly so goes the long way: a
gap in a column of whole numbers, a column that is absent, params, types that MLflow converts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from .input import IS_PANDAS_3, type_of_texts

_TYPES = {
    "boolean": np.dtype(np.bool_),
    "integer": np.dtype(np.int32),
    "long": np.dtype(np.int64),
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
}
_TEXT = "string"


class ExactInput:
    """Asks a model whose signature has named columns of plain types. `types` are those of the
    columns, None for texts; `predict` is the model's without enforcement."""

    def __init__(
        self,
        names: tuple[str, ...],
        types: tuple[np.dtype[Any] | None, ...],
        predict: Callable[[Any], Any],
    ) -> None:
        self._names = names
        self._types = types
        self.predict = predict

    @classmethod
    def of(cls, model: Any) -> ExactInput | None:
        """For a model that MLflow has loaded; None where its signature asks for more, or MLflow
        doesn't let itself be left out."""
        inputs = model.metadata.get_input_schema()
        if inputs is None or inputs.is_tensor_spec() or not inputs.has_input_names():
            return None
        if _params_of(model) is not None or _follows_hints(model):
            return None
        names = tuple(inputs.input_names())
        kinds = [getattr(each, "name", None) for each in inputs.input_types()]
        plain = (*_TYPES, _TEXT) if _takes_texts() else (*_TYPES,)
        if len(set(names)) < len(names) or any(each not in plain for each in kinds):
            return None
        asked = _unenforced(model)
        if asked is None:
            return None
        return cls(names, tuple(_TYPES.get(str(each)) for each in kinds), asked.predict)

    def is_made_of(self, layout: str, names: tuple[Any, ...], columns: tuple[Any, ...]) -> bool:
        """Whether a frame has just the columns of the signature, in its order and types."""
        return (
            layout == "table"
            and names == self._names
            and all(_is_of(kind, column) for column, kind in zip(columns, self._types))
        )


def _is_of(kind: np.dtype[Any] | None, column: Any) -> bool:
    if kind is None:
        return type(column) is list
    return isinstance(column, np.ndarray) and column.dtype == kind


def _follows_hints(model: Any) -> bool:
    """Whether MLflow makes something else than a table, by what the signature was inferred from;
    it has that since 2.20."""
    names = ("_is_signature_from_type_hint", "_is_type_hint_from_example")
    return any(getattr(model.metadata, name, bool)() for name in names)


def _takes_texts() -> bool:
    """Whether MLflow takes this pandas's texts as they are: objects always, pandas 3's `str` since
    it knows pandas 3, what a model makes of earlier ones by an option not."""
    return isinstance(type_of_texts(), np.dtype) or IS_PANDAS_3


def _params_of(model: Any) -> Any:
    """The schema of params, None where there is none; MLflow has them since 2.6."""
    find = getattr(model.metadata, "get_params_schema", None)
    return None if find is None else find()


def _unenforced(model: Any) -> Any:
    """The same model beside itself, with metadata of its own; None where that can't be had.

    Calls may run side by side, so the model keeps its signature. `metadata` has no setter:
    `_model_meta` is what it gives, in all releases since 1.0 (docs/11-ray-internals.md).
    """
    asked = copy.copy(model)
    asked._model_meta = copy.copy(model.metadata)
    asked.metadata.signature = None
    is_apart = model.metadata.get_input_schema() is not None
    return asked if is_apart and asked.metadata.get_input_schema() is None else None
