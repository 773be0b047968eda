"""How a version's process is started: by a fork of a template, or anew (spawn).

A fork costs milliseconds and shares what the template has imported; what a package does while it
is imported decides whether a fork of it is as good as a fresh process. The table was measured
(docs/5-performance.md, "Start of a process"): a row says what the template imports, and why a
flavor is spawned where it is.
"""

from __future__ import annotations

from typing import NamedTuple


class StartMethod(NamedTuple):
    """What the template imports ahead, and whether a process is forked from it.

    Where it isn't forked nothing is imported.
    """

    preload: tuple[str, ...]
    forks: bool
    why: str


_MLFLOW = ("mlflow.pyfunc",)

_SPAWN_REASON = {
    "mlflow.tensorflow": "TensorFlow starts threads while it is imported.",
    "mlflow.keras": "Its backend may be TensorFlow.",
    "mlflow.spark": "It starts a Java machine.",
    "mlflow.h2o": "It starts a Java machine.",
}

_PRELOAD = {
    "mlflow.sklearn": ("sklearn", "sklearn.pipeline", "sklearn.ensemble",
                       "sklearn.linear_model", "sklearn.compose"),
    "mlflow.xgboost": ("xgboost",),
    "mlflow.lightgbm": ("lightgbm",),
    "mlflow.catboost": ("catboost",),
    "mlflow.pytorch": ("torch",),
    "mlflow.transformers": ("torch", "transformers"),
    "mlflow.onnx": ("onnx", "onnxruntime"),
    "mlflow.statsmodels": ("statsmodels",),
}  # fmt: skip

OF_ANY_FLAVOR = StartMethod(_MLFLOW, True, "The template imports MLflow, its child the rest.")
"""For models whose flavor has no row: their own packages are imported after the fork."""


def start_method(flavor: str | None) -> StartMethod:
    """How a version of that flavor is started; `flavor` is the loader module of its MLmodel
    file."""
    reason = _SPAWN_REASON.get(flavor or "")
    if reason is not None:
        return StartMethod((), False, reason)
    packages = _PRELOAD.get(flavor or "")
    if packages is None:
        return OF_ANY_FLAVOR
    return StartMethod((*_MLFLOW, flavor or "", *packages), True, "Its import starts no thread.")
