"""A hot version's p99 while a cold one, which takes 10 s to load, loads beside it.

The load has the last core for itself and everything else the others, as on a machine with a free
core: how a busy core is shared is the system's matter, and the same for any two processes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.driving import LoadPlan, driving
from benchmarks.figures import figures_of
from benchmarks.scenarios.finding import Finding, Say, at_most
from benchmarks.scenarios.world import (
    CHAMPION,
    VERSION_HEADER,
    exchanges,
    predict_url,
    world,
)
from tests.support.processes import Gateway
from tests.support.processes_of import command_of, processes_of

_MODEL = "steady"
_LOAD_S = 10.0
_BEFORE_S = 6.0
_WARM_UP_S = 3.0
_CALLERS = 8
_BAR = 1.15
_BODIES = [{"x": float(number)} for number in range(_CALLERS)]


class ColdVersion:
    """Once with a load that waits, and once with one that computes, in Python, all the time."""

    name = "cold-version"

    def run(self, folder: Path, say: Say) -> Sequence[Finding]:
        """Each in a gateway of its own."""
        return [
            self._loading(folder / kind, say, kind, on_load)
            for kind, on_load in (("waits", _wait()), ("computes", _compute()))
        ]

    def _loading(self, folder: Path, say: Say, kind: str, on_load: Callable[[], None]) -> Finding:
        def fill(uri: str) -> None:
            # MLflow warns of this module's types when it is imported: only where it is needed.
            from tests.support.registering import client, columns, register

            columns_ = columns(("x", "double"))
            register(uri, _MODEL, _double, columns_, columns(("y", "double")))
            client(uri).set_registered_model_alias(_MODEL, CHAMPION, "1")
            register(uri, _MODEL, _double, columns_, columns(("y", "double")), on_load=on_load)

        with _without_last_core(), world(folder, fill) as (started, _):
            before, during, took_s = _measured(started)
        say(f"  a load that {kind} ({took_s:.1f} s): p99 {before:.1f} ms, then {during:.1f} ms")
        return at_most(
            f"hot version's p99 while a cold one loads, which {kind}",
            during / before,
            _BAR,
            f"{during:.1f} instead of {before:.1f} ms, load of {took_s:.1f} s",
        )


_CORES = os.sched_getaffinity(0)


@contextmanager
def _without_last_core() -> Iterator[None]:
    """What is started meanwhile has all cores but the last."""
    os.sched_setaffinity(0, _CORES - {max(_CORES)} or _CORES)
    try:
        yield
    finally:
        os.sched_setaffinity(0, _CORES)


def _give_last_core_to_loads(started: Gateway) -> None:
    """What the template of the model's replica forks from now on has that core."""
    for process in processes_of(started.process.pid):
        if "start.py template" in command_of(process):
            os.sched_setaffinity(process, {max(_CORES)})


def _measured(started: Gateway) -> tuple[float, float, float]:
    """p99 in ms before and while the cold version is waited for, and for how long that was."""
    plan = LoadPlan(
        url=predict_url(started, _MODEL),
        exchanges=exchanges(started, _MODEL, _BODIES),
        callers=_CALLERS,
        warm_up_s=_WARM_UP_S,
        round_s=_BEFORE_S + _LOAD_S * 2.5,
        rounds=1,
        times=True,
    )
    _give_last_core_to_loads(started)
    with driving(plan) as load:
        time.sleep(_WARM_UP_S + _BEFORE_S)
        began = time.time()
        response = started.predict(_MODEL, _BODIES[0], **{VERSION_HEADER.replace("-", "_"): "2"})
        ended = time.time()
        assert response.status_code == 200, response.text
        result = load.result()
    assert not result.failed, result.problems
    before = figures_of(result.between(began - _BEFORE_S + 1.0, began), _BEFORE_S - 1.0)
    during = figures_of(result.between(began, ended), ended - began)
    return before.p99_ms, during.p99_ms, ended - began


def _double(rows: Any, params: Any) -> Any:
    return rows["x"] * 2.0


def _wait() -> Callable[[], None]:
    seconds = _LOAD_S

    def on_load() -> None:
        import time

        time.sleep(seconds)

    return on_load


def _compute() -> Callable[[], None]:
    seconds = _LOAD_S

    def on_load() -> None:
        import time

        until = time.monotonic() + seconds
        while time.monotonic() < until:
            compile("x = [i * i for i in range(100)]\n" * 20, "<burning>", "exec")

    return on_load
