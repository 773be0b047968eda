"""Registering small real models on a real MLflow server, for the tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cloudpickle
import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, ParamSchema, Schema

Predict = Callable[[pd.DataFrame, Mapping[str, Any]], Any]


class CallableModel(PythonModel):  # type: ignore[misc]
    """A pyfunc model around a function; pickled by value, so the replica needs no tests."""

    def __init__(self, predict: Predict, on_load: Callable[[], None] | None = None) -> None:
        self._predict = predict
        self._on_load = on_load

    def load_context(self, context: Any) -> None:
        if self._on_load is not None:
            self._on_load()

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        return self._predict(model_input, params or {})


def columns(*specs: tuple[str, str] | tuple[str, str, bool]) -> Schema:
    """A schema of named columns: (name, type) or (name, type, required)."""
    return Schema([ColSpec(spec[1], spec[0], *spec[2:]) for spec in specs])


def register(
    uri: str,
    name: str,
    predict: Predict,
    inputs: Schema | None,
    outputs: Schema | None = None,
    *,
    params: ParamSchema | None = None,
    on_load: Callable[[], None] | None = None,
    code_paths: Sequence[str] | None = None,
    input_example: Any = None,
    requirements: Sequence[str] = ("mlflow",),
) -> int:
    """Log a function as a pyfunc model and register it; the version's number."""
    signature = None if inputs is None else ModelSignature(inputs, outputs, params)
    return log(
        uri,
        name,
        CallableModel(predict, on_load),
        signature=signature,
        code_paths=code_paths,
        input_example=input_example,
        pip_requirements=[*requirements],
    )


def register_fitted(uri: str, name: str) -> int:
    """Log a scikit-learn model that doubles its column `x`, and register it; the version's number.
    What it needs is as little as can be: most of what MLflow names by itself it doesn't need."""
    from sklearn.linear_model import LinearRegression

    rows = pd.DataFrame({"x": [0.0, 1.0]})
    model = LinearRegression().fit(rows, [0.0, 2.0])
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    info = mlflow.sklearn.log_model(
        model,
        name="model",
        pip_requirements=["mlflow-skinny", "scikit-learn", "skops"],
        registered_model_name=name,
        signature=ModelSignature(columns(("x", "double")), columns(("y", "double"))),
    )
    return int(info.registered_model_version)


def log(uri: str, name: str, model: Any, **options: Any) -> int:
    """Log any Python model and register it; the version's number."""
    # By value: the replica that loads it can't import the tests.
    for module in {__name__, type(model).__module__, _defined_in(model)}:
        cloudpickle.register_pickle_by_value(sys.modules[module])
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    info = mlflow.pyfunc.log_model(
        name="model",
        python_model=model,
        registered_model_name=name,
        **{"pip_requirements": ["mlflow"], **options},
    )
    return int(info.registered_model_version)


def _defined_in(model: Any) -> str:
    return str(getattr(getattr(model, "_predict", None), "__module__", __name__))


def client(uri: str) -> MlflowClient:
    """A client of the registry at `uri`."""
    return MlflowClient(uri, uri)
