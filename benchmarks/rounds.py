"""One row, asked again and again by N callers: a warm-up, then rounds, each with what it cost the
server's processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from benchmarks import compiled_load
from benchmarks.compiled_load import compiled_round, whole_seconds
from benchmarks.driving import LoadFailed, LoadPlan, drive, driving
from benchmarks.figures import Figures, figures_of, median_figures
from tests.support.processes_of import processes_of, usage_of

PATIENCE = 5
"""How many times as long rounds are for who takes a good part of one to answer."""

_GOOD_PART = 0.25

Round = Callable[[LoadPlan, float], tuple[Figures, int]]
"""So many seconds of a plan's load: the figures without their cost, and how many were answered."""


def measured_rounds(plan: LoadPlan, *, session: int) -> Figures:
    """The medians of the plan's rounds, at a server whose processes are of that session; failures
    are figures too. Raises LoadFailed where nothing is answered, however long it is waited."""
    make = _compiled if compiled_load.is_there() else _by_ours
    make(plan, plan.warm_up_s)
    found = [_costed(make, plan, session) for _ in range(plan.rounds)]
    return replace(median_figures(found), failed=sum(each.failed for each in found))


def _costed(make: Round, plan: LoadPlan, session: int) -> Figures:
    for seconds in (plan.round_s, plan.round_s * PATIENCE):
        before = _cpu_s(session)
        figures, answered = make(plan, seconds)
        # Every round begins with as many first requests as there are callers; where those are most
        # of it, it tells nothing.
        if answered and (figures.p50_ms < seconds * 1e3 * _GOOD_PART or seconds > plan.round_s):
            cost = (_cpu_s(session) - before) / answered * 1e3
            return replace(figures, cpu_s_per_1000=cost or None)  # a session of its own
    raise LoadFailed(f"a round went by without an answer: {plan.url}")


def _cpu_s(session: int) -> float:
    """All that the server's processes have used; those that have ended are forgotten."""
    return sum(each.cpu_s for each in usage_of(processes_of(session)).values())


def _compiled(plan: LoadPlan, seconds: float) -> tuple[Figures, int]:
    """wrk, and one of its callers replaced by ours, who looks at the answers; a lone caller is
    wrk's, and answers are looked at before (`measuring.checked_exchange`)."""
    length = whole_seconds(seconds)
    if plan.callers == 1:
        found, ours, wrong = compiled_round(plan, callers=1, seconds=length), 0, 0
    else:
        with driving(replace(_one_round(plan, length), callers=1)) as load:
            found = compiled_round(plan, callers=plan.callers - 1, seconds=length)
            result = load.result()
        ours, wrong = sum(map(len, result.rounds)), len(result.failed)
    answered = found.answered + ours
    figures = Figures(
        per_s=answered / found.seconds,
        p50_ms=found.p50_ms,
        p99_ms=found.p99_ms,
        failed=found.refused + found.lost + wrong,
    )
    return figures, answered


def _one_round(plan: LoadPlan, seconds: float) -> LoadPlan:
    return replace(plan, warm_up_s=0.0, rounds=1, round_s=seconds)


def _by_ours(plan: LoadPlan, seconds: float) -> tuple[Figures, int]:
    result = drive(_one_round(plan, seconds), failures_allowed=True)
    (took,) = result.rounds
    if not took:
        return Figures(per_s=0.0, p50_ms=0.0, p99_ms=0.0, failed=len(result.failed)), 0
    return replace(figures_of(took, seconds), failed=len(result.failed)), len(took)
