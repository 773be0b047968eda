"""A shadow of all requests beside a default under load, also one that is slow, hangs, crashes or
answers nonsense: what the default's callers notice of it."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.types import ColSpec, Schema

from benchmarks.scenarios.finding import Finding, Say, at_least, at_most
from benchmarks.scenarios.tagged_rounds import AGAIN, Compared, Variant, rounds_in_turn
from benchmarks.scenarios.world import CHAMPION, world
from benchmarks.work import COLUMNS, MODEL, register_model
from tests.support.processes import Gateway
from tests.support.registering import Predict, register

_CALLERS = 64
_ROUNDS = 7
_BAR = 1.25
_SLOW_S = 0.02


def _slow(rows: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
    """About ten times what a call of the default takes, all of it work."""
    until = time.perf_counter() + _SLOW_S
    while time.perf_counter() < until:
        pass
    return pd.DataFrame({"yield": rows["sepal_length"]})


def _hangs(rows: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
    time.sleep(3600.0)
    return rows


def _crashes(rows: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
    os._exit(3)


def _garbage(rows: pd.DataFrame, params: Mapping[str, Any]) -> Any:
    return [{"never": object} for _ in range(7)]


_FAULTS: Mapping[str, Predict] = {
    "is ten times slower": _slow,
    "hangs": _hangs,
    "crashes": _crashes,
    "answers nonsense": _garbage,
}
_SAME = "is the same"
_NUMBERS = {what: number for number, what in enumerate((_SAME, *_FAULTS), start=2)}


class ShadowOfAll:
    """The default with a shadow of 100%, at 64 callers; with `faults` one of each."""

    def __init__(self, *, faults: bool) -> None:
        self.name = "shadow-faults" if faults else "shadow"
        self._whats = (*_FAULTS,) if faults else (_SAME,)
        self._beside = () if faults else (AGAIN,)

    def run(self, folder: Path, say: Say) -> Sequence[Finding]:
        """Rounds in turn, of none too."""
        variants = [_variant(_NUMBERS[what], what) for what in self._whats]
        with world(folder, _register) as (started, registry):
            outcomes = _Outcomes(started)
            found = rounds_in_turn(
                started,
                registry,
                [*self._beside, *variants],
                callers=_CALLERS,
                rounds=_ROUNDS,
                say=say,
                after=outcomes.look,
            )
        for name, counts in outcomes.counted.items():
            say(f"  {name}: {dict(counts)}")
        return [finding for name, each in found.items() for finding in _findings(name, each)]


class _Outcomes:
    """What became of the requests that shadows were to have."""

    def __init__(self, started: Gateway) -> None:
        self._started = started
        self.counted: dict[str, Counter[str]] = {}

    def look(self, variant: Variant) -> None:
        """Each time another shadow is beside it begins anew."""
        if variant.tags:  # what a replica tells every two seconds
            told = self._started.client.get(f"/models/{MODEL}/shadow").json()["requests"]
            self.counted.setdefault(variant.name, Counter()).update(told)


def _variant(number: int, what: str) -> Variant:
    return Variant(
        name=f"the shadow {what}",
        tags={"modelmux.shadow": str(number)},
        ready=lambda told: True,
    )


def _findings(name: str, compared: Compared) -> list[Finding]:
    p99 = compared.ratio(lambda each: each.p99_ms)
    per_s = compared.ratio(lambda each: each.per_s)
    found = [
        at_most(f"{name}: p99", p99, _BAR, compared.detail(lambda each: each.p99_ms, "ms")),
        at_least(
            f"{name}: requests/s", per_s, 1 / _BAR, compared.detail(lambda each: each.per_s, "/s")
        ),
    ]
    failed = Finding(
        what=f"{name}: failed requests",
        measured=str(compared.failed),
        bar="none",
        met=not compared.failed,
    )
    return [*found, failed]


def _register(uri: str) -> None:
    for _ in range(2):
        register_model(uri)
    inputs = Schema([ColSpec("double", name) for name in COLUMNS])
    outputs = Schema([ColSpec("double", "yield")])
    for predict in _FAULTS.values():
        register(uri, MODEL, predict, inputs, outputs)
    MlflowClient(uri, uri).set_registered_model_alias(MODEL, CHAMPION, "1")
