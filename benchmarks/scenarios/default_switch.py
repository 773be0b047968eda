"""The default version is switched under load: nothing fails, and hardly anything waits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from mlflow import MlflowClient

from benchmarks.driving import LoadPlan, LoadResult, driving
from benchmarks.figures import figures_of
from benchmarks.scenarios.finding import Finding, Say, at_most
from benchmarks.scenarios.world import CHAMPION, VERSION_HEADER, exchanges, predict_url, world
from benchmarks.work import COLUMNS, MODEL, register_model
from tests.support.processes import Gateway, poll

_CALLERS = 16
_WARM_UP_S = 3.0
_BEFORE_S = 6
_AFTER_S = 8.0
_BAR = 2.0
_BODIES = [dict.fromkeys(COLUMNS, number / 4) for number in range(_CALLERS)]


class DefaultSwitch:
    """Two versions of the same model, so that the answers stay what they were."""

    name = "switch"

    def run(self, folder: Path, say: Say) -> Sequence[Finding]:
        """Moves the alias from 1 to 2, and has the registry looked at."""
        with world(folder, _register) as (started, registry):
            result, began, switched = _switched_under_load(started, registry)
        usual = median(
            _p99_ms(result, began - second - 1, began - second) for second in range(_BEFORE_S - 1)
        )
        # The worst second that touches the switch, wherever it begins.
        starts = (began + step * 0.25 for step in range(-3, int((switched - began) * 4) + 5))
        worst = max(_p99_ms(result, start, start + 1.0) for start in starts)
        say(f"  took {switched - began:.2f} s; p99 {usual:.1f} ms, then {worst:.1f} ms")
        detail = f"{worst:.1f} instead of {usual:.1f} ms"
        return [
            Finding(
                what="failed requests while the default is switched",
                measured=str(len(result.failed)),
                bar="none",
                met=not result.failed,
            ),
            at_most("p99 in that second, of the usual", worst / usual, _BAR, detail),
        ]


def _register(uri: str) -> None:
    for _ in range(2):
        register_model(uri)
    MlflowClient(uri, uri).set_registered_model_alias(MODEL, CHAMPION, "1")


def _switched_under_load(
    started: Gateway, registry: MlflowClient
) -> tuple[LoadResult, float, float]:
    """What the load saw, when the alias was moved, and when the new default answered."""
    plan = LoadPlan(
        url=predict_url(started, MODEL),
        exchanges=exchanges(started, MODEL, _BODIES),
        callers=_CALLERS,
        warm_up_s=_WARM_UP_S,
        round_s=_BEFORE_S + _AFTER_S,
        rounds=1,
        times=True,
    )
    with driving(plan) as load:
        time.sleep(_WARM_UP_S + _BEFORE_S)
        began = time.time()
        registry.set_registered_model_alias(MODEL, CHAMPION, "2")
        started.sync()
        poll(lambda: _answering(started) == "2", what="the new default answering")
        switched = time.time()
        return load.result(), began, switched


def _answering(started: Gateway) -> str:
    return started.predict(MODEL, _BODIES[0]).headers[VERSION_HEADER]


def _p99_ms(result: LoadResult, start: float, stop: float) -> float:
    return figures_of(result.between(start, stop), stop - start).p99_ms
