"""Batch keys: which versions are batched, and which calls of one may share a batch.

Must not import ray, mlflow or fastapi.
"""

from __future__ import annotations

import pickle
from collections.abc import Hashable

from gateway.catalog import ModelVersion, ServedModel
from gateway.ports import Call

ROW_WISE_FLAVORS = frozenset(
    {
        "mlflow.catboost",
        "mlflow.h2o",
        "mlflow.keras",
        "mlflow.lightgbm",
        "mlflow.onnx",
        "mlflow.paddle",
        "mlflow.pytorch",
        "mlflow.sentence_transformers",
        "mlflow.sklearn",
        "mlflow.spacy",
        "mlflow.spark",
        "mlflow.tensorflow",
        "mlflow.transformers",
        "mlflow.xgboost",
    }
)
"""The flavors (loader modules) that answer each row by itself: batched unless a tag says no.

The reason for each, and for those that aren't here, is in docs/5-performance.md.
"""


def is_batched(model: ServedModel, version: ModelVersion) -> bool:
    """Whether calls of the version travel together: by the model's tag, else by its flavor."""
    if model.options.batching == "auto":
        return version.flavor in ROW_WISE_FLAVORS
    return model.options.batching == "on"


def company(call: Call) -> Hashable:
    """What must be equal in calls that travel together; of params their order, too, in which they
    reach the model."""
    if not call.params:
        return call.frame.key
    return (call.frame.key, pickle.dumps(tuple(call.params.items())))
