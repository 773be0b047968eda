"""A model beside itself, whose inputs MLflow doesn't enforce a signature on."""

from __future__ import annotations

import copy
from typing import Any


def unenforced(model: Any) -> Any:
    """The same model with metadata of its own, whose signature has no inputs: that is MLflow's
    way not to enforce any. Params are enforced as before. None where that can't be had.

    Beside it, because calls may run side by side. `metadata` has no setter: `_model_meta` is what
    it gives, in all releases since 1.0 (docs/11-ray-internals.md).
    """
    copied = copy.copy(model)
    copied._model_meta = copy.copy(model.metadata)
    copied.metadata.signature = _of_params(model.metadata)
    is_apart = model.metadata.get_input_schema() is not None
    return copied if is_apart and copied.metadata.get_input_schema() is None else None


def _of_params(metadata: Any) -> Any:
    params = params_of(metadata)
    if params is None:
        return None
    from mlflow.models import ModelSignature

    return ModelSignature(params=params)


def params_of(metadata: Any) -> Any:
    """The schema of params, None where there is none; MLflow has them since 2.6."""
    find = getattr(metadata, "get_params_schema", None)
    return None if find is None else find()
