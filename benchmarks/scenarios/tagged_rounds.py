"""A model under load, with and without tags: rounds in turn, so that whatever else the machine does
at a time meets all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from mlflow import MlflowClient

from benchmarks.driving import LoadPlan, drive
from benchmarks.figures import Figures, figures_of, median_figures
from benchmarks.scenarios.finding import Say
from benchmarks.scenarios.world import exchanges, predict_url
from benchmarks.work import COLUMNS, MODEL
from tests.support.processes import Gateway, poll

Tags = Mapping[str, str]
Ready = Callable[[dict[str, object]], bool]

_WARM_UP_S = 1.0
_ROUND_S = 2.5
_BODIES = [dict.fromkeys(COLUMNS, number / 4) for number in range(16)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Tags of the model, and how `/models/{name}` tells that they hold."""

    name: str
    tags: Tags
    ready: Ready


PLAIN = Variant(name="plain", tags={}, ready=lambda told: True)
AGAIN = Variant(name="plain, again", tags={}, ready=lambda told: True)
"""Beside `PLAIN`: how much two of the same differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The rounds of a variant, and those of the plain model beside them."""

    rounds: Sequence[Figures]
    plain: Sequence[Figures]

    @property
    def failed(self) -> int:
        """Requests that failed in all of its rounds."""
        return sum(each.failed for each in self.rounds)

    def ratio(self, of: Callable[[Figures], float]) -> float:
        """The median of a figure, of that of the plain model."""
        return median(map(of, self.rounds)) / median(map(of, self.plain))

    def detail(self, of: Callable[[Figures], float], unit: str) -> str:
        """Both medians."""
        ours, plain = median(map(of, self.rounds)), median(map(of, self.plain))
        return f"{ours:,.4g} and {plain:,.4g} {unit}, medians of {len(self.rounds)} rounds"


def rounds_in_turn(
    started: Gateway,
    registry: MlflowClient,
    variants: Sequence[Variant],
    *,
    callers: int,
    rounds: int,
    say: Say,
    after: Callable[[Variant], None] = lambda variant: None,
) -> dict[str, Compared]:
    """Each variant beside the plain model, as many rounds of each; `after` is called after each
    round of a variant, while its tags hold."""
    asked = exchanges(started, MODEL, _BODIES)
    plan = LoadPlan(
        url=predict_url(started, MODEL),
        exchanges=asked,
        callers=callers,
        warm_up_s=_WARM_UP_S,
        round_s=_ROUND_S,
        rounds=1,
    )
    found: dict[str, list[Figures]] = {each.name: [] for each in (PLAIN, *variants)}
    for number in range(rounds):
        order = [PLAIN, *variants]
        for variant in order[number % len(order) :] + order[: number % len(order)]:
            _tag(started, registry, variant)
            result = drive(plan, failures_allowed=True)
            took = figures_of(result.rounds[0], _ROUND_S)
            found[variant.name].append(
                Figures(
                    per_s=took.per_s,
                    p50_ms=took.p50_ms,
                    p99_ms=took.p99_ms,
                    failed=len(result.failed),
                )
            )
            after(variant)
    for name, each in found.items():
        figures = median_figures(each)
        say(
            f"  {callers} callers, {name}: {figures.per_s:,.0f}/s, p50 {figures.p50_ms:.2f} ms, "
            f"p99 {figures.p99_ms:.2f} ms; " + ", ".join(f"{one.p99_ms:.1f}" for one in each)
        )
    return {
        each.name: Compared(rounds=found[each.name], plain=found[PLAIN.name]) for each in variants
    }


def _tag(started: Gateway, registry: MlflowClient, variant: Variant) -> None:
    """Have those tags alone, and the gateway know it."""
    known = registry.get_registered_model(MODEL).tags
    for tag in known.keys() - variant.tags.keys():
        registry.delete_registered_model_tag(MODEL, tag)
    for tag, value in variant.tags.items():
        registry.set_registered_model_tag(MODEL, tag, value)
    started.sync()
    poll(lambda: variant.ready(started.model(MODEL)), timeout_s=120.0, what=f"{variant.name} ready")
    time.sleep(0.5)  # until the ingress has the catalog
