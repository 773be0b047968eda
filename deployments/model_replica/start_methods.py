"""How a version's process is started: by a fork of a template, or anew (spawn).

A fork costs milliseconds and shares what the template has imported; what a package does while it
is imported decides whether a fork of it is as good as a fresh process. The table was measured
(docs/5-performance.md, "Start of a process"): a row says what the template imports, and why a
flavor is spawned where it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class StartMethod(NamedTuple):
    """What the template imports ahead, and whether a process is forked from it.

    Where it isn't forked nothing is imported.
    """

    preload: tuple[str, ...]
    forks: bool
    why: str


_MLFLOW = ("mlflow.pyfunc",)

# What else there is of a flavor's module is imported by the load, in a moment.
_PRELOAD = {
    "mlflow.sklearn": (
        # Not skops, which MLflow 3.17 saves by: it imports all of scikit-learn, and torch where
        # there is one. The first load of a pickled model would wait for that for 1.5 to 4 s.
        ("sklearn.pipeline", "sklearn.ensemble", "sklearn.linear_model", "sklearn.compose"),
        "Its import starts no thread but SciPy's OpenBLAS, which stops its own before a fork.",
    ),
    "mlflow.xgboost": (
        ("xgboost",),
        "As scikit-learn, which it imports. OpenMP starts threads with the first computation.",
    ),
    "mlflow.lightgbm": (
        ("lightgbm",),
        "As scikit-learn, which it imports. OpenMP starts threads with the first computation.",
    ),
    "mlflow.statsmodels": (
        ("statsmodels.api",),  # `statsmodels` alone imports nothing
        "Its import starts no thread but SciPy's OpenBLAS, which stops its own before a fork.",
    ),
    "mlflow.pytorch": (("torch",), "Its import starts no thread."),
    "mlflow.transformers": (
        ("torch", "transformers.pipelines"),  # `transformers` alone imports little
        "Its import starts no thread.",
    ),
}  # fmt: skip

_SPAWN_REASON = {
    "mlflow.tensorflow": "Not tried: a process of its own costs seconds, and is right.",
    "mlflow.keras": "As TensorFlow, which it may run on.",
    "mlflow.spark": "It starts a Java machine.",
    "mlflow.h2o": "It starts a Java machine.",
}

OF_ANY_FLAVOR = StartMethod(_MLFLOW, True, "The template imports MLflow, its child the rest.")
"""For models whose flavor has no row: their own packages are imported after the fork. So it is with
those that it would be no use or no good to import ahead: catboost and onnx take less than 0.1 s,
and onnxruntime starts a thread while it is imported."""


def start_methods(flavors: Iterable[str]) -> list[StartMethod]:
    """What versions of these flavors are started by, each once; where there are none, what those of
    any flavor may be."""
    return list(dict.fromkeys(map(start_method, flavors))) or [OF_ANY_FLAVOR]


def start_method(flavor: str | None) -> StartMethod:
    """How a version of that flavor is started; `flavor` is the loader module of its MLmodel
    file."""
    reason = _SPAWN_REASON.get(flavor or "")
    if reason is not None:
        return StartMethod((), False, reason)
    found = _PRELOAD.get(flavor or "")
    if found is None:
        return OF_ANY_FLAVOR
    packages, why = found
    return StartMethod((*_MLFLOW, flavor or "", *packages), True, why)
