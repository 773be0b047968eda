"""Measuring one contender: started once, asked by more and more callers, then for a long list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.contenders.contender import Contender, Form, Place, Serving, written
from benchmarks.driving import Exchange, LoadPlan, drive
from benchmarks.environments import Say, interpreter, version_of
from benchmarks.figures import Figures
from benchmarks.memory import forget_peak, memory_of, process_named
from benchmarks.rounds import measured_rounds
from benchmarks.work import LIST_ROWS, Question, Work
from tests.support.processes import free_port

INGRESS = "ServeReplica:modelmux:Ingress"

_PACKAGES = (
    "modelmux", "ray", "mlflow", "mlserver", "mlserver-mlflow", "litserve", "bentoml", "mosec",
    "granian", "fastapi", "pydantic", "uvicorn", "scikit-learn", "numpy", "pandas",
)  # fmt: skip
_FIRST_ANSWER_S = 120.0
_LIST_WARM_UP_S = 2.0


class WrongAnswer(Exception):
    """A contender gave other values than the model does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long to measure: the warm-up of each level, a round, and how many of them."""

    levels: Sequence[int] = (1, 16, 64, 256)
    warm_up_s: float = 2.0
    round_s: float = 4.0
    rounds: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ListFigures:
    """What a list of 10,000 rows came to, in one of the forms that a contender takes.

    `peak_bytes` is by how much the ingress grew at most while it was answered; None where that
    is not looked at.
    """

    form: str
    rows_per_s: float
    p50_ms: float
    body_bytes: int
    peak_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A contender's figures by number of callers, and of lists by form, and what it ran on."""

    name: str
    title: str
    predicts: bool
    versions: dict[str, str]
    levels: dict[int, Figures]
    lists: tuple[ListFigures, ...]


def measure(
    contender: Contender, work: Work, effort: Effort, *, folder: Path, lists: bool, say: Say
) -> Measured:
    """Start it, check it, measure it, end it."""
    python = interpreter(contender.requirements, say)
    folder.mkdir(parents=True)
    place = Place(python=python, port=free_port(), work=work, folder=folder)
    say(f"{contender.title}: starting …")
    with contender.serve(place) as serving:
        levels = _levels(contender, serving, work, effort, say)
        found = _lists(contender, serving, work.list, effort, say) if lists else ()
    return Measured(
        name=contender.name,
        title=contender.title,
        predicts=contender.predicts,
        versions=version_of(python, _PACKAGES),
        levels=levels,
        lists=found,
    )


def checked_exchange(
    url: str, form: Form, question: Question, *, predicts: bool = True
) -> Exchange:
    """Ask once and look at the values; the answer that every later one has to be equal to."""
    body = written(form.encode(question.records))
    response = httpx.post(
        f"{url}{form.path}",
        content=body,
        headers={"Content-Type": form.media_type, "Accept": form.media_type},
        timeout=_FIRST_ANSWER_S,
    )
    if response.status_code != httpx.codes.OK:
        raise WrongAnswer(f"{url}{form.path}: {response.status_code} {response.text[:500]}")
    if predicts:
        _require_values(form.values(response.json()), question.values)
    return Exchange(body=body, answer=response.text, media_type=form.media_type)


def _require_values(given: Any, wanted: Sequence[float]) -> None:
    if list(given) != list(wanted):
        raise WrongAnswer(f"{str(given)[:200]} instead of {str(wanted)[:200]}")


def _levels(
    contender: Contender, serving: Serving, work: Work, effort: Effort, say: Say
) -> dict[int, Figures]:
    form = contender.row_form
    exchanges = [
        checked_exchange(serving.url, form, question, predicts=contender.predicts)
        for question in work.rows
    ]
    found: dict[int, Figures] = {}
    for callers in effort.levels:
        plan = LoadPlan(
            url=f"{serving.url}{form.path}",
            exchanges=exchanges,
            callers=callers,
            warm_up_s=effort.warm_up_s,
            round_s=effort.round_s,
            rounds=effort.rounds,
        )
        found[callers] = figures = measured_rounds(plan, session=serving.session)
        say(
            f"  {callers:3} callers: {figures.per_s:6,.0f} requests/s, "
            f"median {figures.p50_ms:.1f} ms, p99 {figures.p99_ms:.1f} ms, "
            f"{figures.cpu_s_per_1000:.2f} s of the processors per 1,000"
            + (f", {figures.failed} FAILED" if figures.failed else "")
        )
    return found


def _lists(
    contender: Contender, serving: Serving, question: Question, effort: Effort, say: Say
) -> tuple[ListFigures, ...]:
    found = []
    for form in contender.list_forms:
        found.append(_list(contender, serving, form, question, effort))
        say(f"  {LIST_ROWS:,} rows as {form.name}: {found[-1].rows_per_s:,.0f} rows/s")
    return tuple(found)


def _list(
    contender: Contender, serving: Serving, form: Form, question: Question, effort: Effort
) -> ListFigures:
    exchange = checked_exchange(serving.url, form, question)
    plan = LoadPlan(
        url=f"{serving.url}{form.path}",
        exchanges=[exchange],
        callers=1,
        warm_up_s=_LIST_WARM_UP_S,
        round_s=effort.round_s,
        rounds=effort.rounds,
    )
    growth = None
    if contender.name == "modelmux":
        ingress = process_named(INGRESS, session=serving.session)
        forget_peak(ingress)
        before = memory_of(ingress).resident
        result = drive(plan)
        growth = memory_of(ingress).peak - before
    else:
        result = drive(plan)
    figures = result.figures
    return ListFigures(
        form=form.name,
        # From the median's duration: a round holds too few lists to count them.
        rows_per_s=LIST_ROWS / (figures.p50_ms / 1e3),
        p50_ms=figures.p50_ms,
        body_bytes=len(exchange.body),
        peak_bytes=growth,
    )
