"""What a registered model costs that nobody calls: processes, and memory of the ingress."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from mlflow import MlflowClient

from benchmarks.measuring import INGRESS
from benchmarks.memory import memory_of, process_named
from benchmarks.scenarios.finding import Finding, Say
from benchmarks.scenarios.world import world
from benchmarks.work import MODEL, register_model
from tests.support.processes import Gateway, poll
from tests.support.processes_of import processes_of

_MODELS = 200
_BAR_BYTES = 100_000
_READINGS = 20
_PAUSE_S = 0.25


class IdleModels:
    """200 models join one that is served already."""

    name = "idle-models"

    def run(self, folder: Path, say: Say) -> Sequence[Finding]:
        """Before and after, once the gateway lists them all."""
        with world(folder, _register_one) as (started, registry):
            _look_around(started)
            processes, before = _now(started)
            _register_more(registry)
            poll(lambda: _synced(started), timeout_s=120.0, what="200 more models")
            _look_around(started)
            processes_then, after = _now(started)
        each = (after - before) / _MODELS
        say(f"  ingress {before / 1e6:.1f} MB, then {after / 1e6:.1f} MB")
        return [
            Finding(
                what="processes for 200 idle models",
                measured=str(max(0, processes_then - processes)),
                bar="none",
                met=processes_then <= processes,
            ),
            Finding(
                what="memory of the ingress for an idle model",
                measured=f"{each / 1e3:.0f} kB",
                bar=f"under {_BAR_BYTES // 1000} kB",
                met=each < _BAR_BYTES,
            ),
        ]


def _register_one(uri: str) -> None:
    register_model(uri)


def _register_more(registry: MlflowClient) -> None:
    """Versions of the artifact that is there."""
    first = registry.get_model_version(MODEL, "1")
    assert first.source is not None
    logged = first.source.removeprefix("models:/")
    for number in range(_MODELS):
        name = f"idle-{number:03}"
        registry.create_registered_model(name)
        registry.create_model_version(
            name, source=first.source, run_id=first.run_id, model_id=logged
        )


def _synced(started: Gateway) -> bool:
    started.sync()
    return len(started.client.get("/models").json()["models"]) == _MODELS + 1


def _look_around(started: Gateway) -> None:
    """What is made once, on the first look, is no model's."""
    for path in ("/models", "/openapi.json"):
        assert started.client.get(path).status_code == 200


def _now(started: Gateway) -> tuple[int, float]:
    """Processes of the gateway, and resident bytes of its ingress, once they have settled."""
    session = started.process.pid
    ingress = process_named(INGRESS, session=session)
    readings = []
    for _ in range(_READINGS):
        readings.append(memory_of(ingress).resident)
        time.sleep(_PAUSE_S)
    return len(processes_of(session)), median(readings)
