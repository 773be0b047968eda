"""What an environment of scikit-learn and MLflow takes to be built, from the look at the registry
until `/models/NAME` says that it is ready."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
from mlflow.models import ModelSignature

from benchmarks.scenarios.finding import Finding, Say
from benchmarks.scenarios.world import world
from tests.support.processes import Gateway, poll
from tests.support.registering import columns

_REQUIREMENTS = ("mlflow==2.22.1", "scikit-learn==1.5.2", "pandas<3")
_CHANGED = ("six==1.16.0", "six==1.17.0", "six==1.15.0")
_BAR_S = 5.0
_BUILT_S = 600.0
_MODEL = """
import mlflow
import pandas as pd

class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        import six, sklearn
        return pd.DataFrame({"v": [f"{sklearn.__version__} {six.__version__}"] * len(model_input)})

mlflow.models.set_model(Model())
"""


class EnvironmentBuild:
    """The first fetches its packages; the others differ from it in one line."""

    name = "environment-build"

    def run(self, folder: Path, say: Say) -> Sequence[Finding]:
        """All in one gateway, with an answer from each."""
        with world(folder, lambda _: None) as (started, registry):
            uri = str(registry.tracking_uri)
            first_s, *others = [_built(started, uri, folder, line) for line in _CHANGED]
        say("  built after " + ", ".join(f"{each:.1f}" for each in (first_s, *others)) + " s")
        return [
            Finding(
                what="environment of scikit-learn and MLflow, nothing fetched yet",
                measured=f"{first_s:.1f} s",
            ),
            Finding(
                what="the same with one line changed",
                measured=f"{max(others):.1f} s (the slower of {len(others)})",
                bar=f"at most {_BAR_S:g} s",
                met=max(others) <= _BAR_S,
            ),
        ]


def _built(started: Gateway, uri: str, folder: Path, line: str) -> float:
    """Register a model that needs it; the seconds from then on until it can be loaded."""
    name = line.replace("==", "-")
    _register(uri, folder, name, [*_REQUIREMENTS, line])
    began = time.perf_counter()
    started.sync()
    poll(lambda: _is_ready(started, name), timeout_s=_BUILT_S, what=f"{name}'s environment")
    took_s = time.perf_counter() - began
    response = started.predict(name, {"x": 1.0})
    assert f"1.5.2 {line.partition('==')[2]}" in response.text, response.text
    return took_s


def _register(uri: str, folder: Path, name: str, requirements: list[str]) -> None:
    script = folder / "model.py"
    script.write_text(_MODEL)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    mlflow.pyfunc.log_model(
        name="model",
        python_model=str(script),
        signature=ModelSignature(columns(("x", "double")), columns(("v", "string"))),
        pip_requirements=requirements,
        registered_model_name=name,
    )


def _is_ready(started: Gateway, name: str) -> bool:
    response = started.client.get(f"/models/{name}")
    told: dict[str, Any] = (response.json().get("environment") if response.is_success else {}) or {}
    assert told.get("state") != "failed", told
    return told.get("kind") == "own" and told.get("state") == "ready"
