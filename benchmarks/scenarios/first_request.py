"""The first request to a sleeping model, and where its time goes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.scenarios.finding import Finding, Say
from benchmarks.scenarios.world import world
from benchmarks.work import COLUMNS, register_model
from tests.support.harm import processes_called
from tests.support.processes import Gateway, poll

_MODELS = 5
_BAR_S = 2.5
_BODY = dict.fromkeys(COLUMNS, 1.0)
_IMPORTS = "import ray.serve, mlflow.pyfunc, mlflow.sklearn, sklearn.tree, pandas"


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstAnswer:
    """How long it took, and what its `Server-Timing` says, in milliseconds by step."""

    took_s: float
    steps_ms: dict[str, float]


class FirstRequest:
    """Several models, each asked once: the second of a model would find it awake. Between two of
    them it is waited for the process that waits (decision 0056); the rest come one at once after
    the other."""

    name = "first-request"

    def run(self, folder: Path, say: Say) -> Sequence[Finding]:
        """The median, its steps, and what a bare process needs to import as much."""
        with world(folder, _register) as (started, _):
            answers = [_first(started, _name(n), rested=True) for n in range(_MODELS)]
            at_once = [_first(started, _name(n), rested=False) for n in range(_MODELS, 2 * _MODELS)]
        took = median(answer.took_s for answer in answers)
        took_at_once = median(answer.took_s for answer in at_once)
        imports = median(_import_s() for _ in range(3))
        say("  " + ", ".join(f"{answer.took_s:.2f} s" for answer in answers))
        say("  at once: " + ", ".join(f"{answer.took_s:.2f} s" for answer in at_once))
        return [
            Finding(
                what="first request to a sleeping scikit-learn model",
                measured=f"{took:.2f} s (median of {_MODELS})",
                bar=f"under {_BAR_S:g} s",
                met=took < _BAR_S,
            ),
            Finding(
                what="the same, one model at once after the other",
                measured=f"{took_at_once:.2f} s (median of {_MODELS})",
            ),
            Finding(
                what="of the first, by its Server-Timing",
                measured=", ".join(
                    f"{step} {median(a.steps_ms.get(step, 0.0) for a in answers):.0f} ms"
                    for step in answers[0].steps_ms
                ),
            ),
            Finding(
                what="a bare process that imports Ray Serve, MLflow and scikit-learn",
                measured=f"{imports:.2f} s",
            ),
        ]


def _name(number: int) -> str:
    return f"sleeping-{number}"


def _register(uri: str) -> None:
    for number in range(2 * _MODELS):
        register_model(uri, _name(number))


def _first(started: Gateway, model: str, *, rested: bool) -> FirstAnswer:
    if rested:
        poll(lambda: processes_called(started, "ray::IDLE"), what="a process that waits")
    began = time.perf_counter()
    response = started.predict(model, _BODY)
    took_s = time.perf_counter() - began
    assert response.status_code == 200, response.text
    return FirstAnswer(took_s=took_s, steps_ms=steps_of(response.headers["Server-Timing"]))


def steps_of(header: str) -> dict[str, float]:
    """Milliseconds by step, from a `Server-Timing` header; steps without a duration are 0."""
    steps = {}
    for part in header.split(","):
        name, *attributes = (piece.strip() for piece in part.split(";"))
        durations = (each[4:] for each in attributes if each.startswith("dur="))
        steps[name] = float(next(durations, "0"))
    return steps


def _import_s() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", _IMPORTS], check=True, capture_output=True)
    return time.perf_counter() - began
