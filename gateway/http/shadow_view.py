"""What `/models/{name}/shadow` and the model's page show of a shadow."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, Field

from gateway.catalog import ServedModel
from gateway.shadow.comparison import TOLERANCE
from gateway.shadow.pairs import pair_of
from gateway.shadow_figures import (
    OUTCOMES,
    ColumnFigures,
    Disagreement,
    ShadowFigures,
    Spread,
)

_MINUTE_S = 60


class ShadowRequests(BaseModel):
    """What became of the requests that the shadow was to have."""

    compared: int = Field(description="Equal or different.")
    equal: int = 0
    different: int = 0
    failed: int = Field(default=0, description="The shadow failed, or answered what can't be.")
    late: int = Field(default=0, description="The shadow was slower than a caller would wait.")
    dropped: int = Field(default=0, description="It wasn't asked: there was too much to do.")


class ShadowColumn(BaseModel):
    """One column of the answers, over all rows that were compared."""

    name: str
    rows: int
    equal: int
    share_equal: float | None
    difference: dict[str, float | None] = Field(
        description="Quantiles of the shadow's numbers less the default's; empty where a column "
        "has others."
    )


class ShadowLatency(BaseModel):
    """Milliseconds that calls took in the process of either version; the shadow's has the lowest
    priority, and shares its calls otherwise."""

    default: dict[str, float | None]
    shadow: dict[str, float | None]


class ShadowStretch(BaseModel):
    """What became of the requests of some time."""

    at: datetime = Field(description="When it begins, in UTC.")
    seconds: int
    equal: int
    different: int
    failed: int
    late: int
    dropped: int
    agreement: float | None


class ShadowDisagreement(BaseModel):
    """A row on which the two differ."""

    at: datetime
    request_id: str
    row: int
    columns: list[str] = Field(description="Those that differ.")
    default: dict[str, Any]
    shadow: dict[str, Any] = Field(description="Values that are long are cut, and end in `…`.")
    inputs: dict[str, Any] | None = Field(
        description="What was asked: where requests are captured, and the key may read it."
    )


class ShadowView(BaseModel):
    """How often a shadow answers as the default does."""

    model: str
    active: bool = Field(description="Whether anything is asked at this moment.")
    reason: str | None = Field(description="Why nothing is, or what came last instead of answers.")
    default_version: int | None
    shadow_version: int | None
    percent: float | None
    tolerance: float | None = Field(
        description="How far numbers with a fraction may be from each other, relatively. Whole "
        "numbers, too, where the tag modelmux.shadow_tolerance says it."
    )
    since: datetime | None
    requests: ShadowRequests
    agreement: float | None = Field(description="Equal ones among those that were compared.")
    columns: list[ShadowColumn]
    latency_ms: ShadowLatency | None
    course: list[ShadowStretch] = Field(description="The same over time, the oldest first.")
    disagreements: list[ShadowDisagreement] = Field(description="The last ones, the newest first.")
    last_failure: str | None


def describe_shadow(
    model: ServedModel,
    figures: ShadowFigures | None,
    *,
    with_inputs: bool,
    with_rows: bool = True,
) -> ShadowView:
    """The figures of a model's shadow, with the rows that differ unless told otherwise. Those of a
    pair that isn't compared any more are shown until another one is."""
    shadow = model.shadow
    figures = _of_this_pair(model, figures)
    pair = None if figures is None else figures.pair
    failure = None if figures is None else figures.failure
    tolerance = None if shadow is None else shadow.tolerance
    return ShadowView(
        model=model.name,
        active=shadow is not None,
        reason=_reason(model),
        default_version=model.default_version if pair is None else pair.default,
        shadow_version=_shadow_version(model, figures),
        percent=None if shadow is None else shadow.percent,
        tolerance=TOLERANCE if shadow is not None and tolerance is None else tolerance,
        since=None if figures is None else _moment(figures.since),
        requests=_requests(figures),
        agreement=None if figures is None else figures.agreement,
        columns=[] if figures is None else [_column(*each) for each in figures.columns.items()],
        latency_ms=None if figures is None else _latency(figures),
        course=[] if figures is None else _course(figures),
        disagreements=[]
        if figures is None or not with_rows
        else [_shown(each, with_inputs) for each in reversed(figures.disagreements)],
        last_failure=None if failure is None else failure.reason,
    )


def _of_this_pair(model: ServedModel, figures: ShadowFigures | None) -> ShadowFigures | None:
    """Nothing where another pair is compared by now, of which nothing is told yet."""
    if figures is None or model.shadow is None:
        return figures
    return figures if figures.pair == pair_of(model) else None


def _shadow_version(model: ServedModel, figures: ShadowFigures | None) -> int | None:
    if figures is not None:
        return figures.pair.shadow
    return None if model.shadow is None else model.shadow.number


def _reason(model: ServedModel) -> str | None:
    if model.shadow is not None:
        return None
    return model.shadow_problem or "The model has no tag modelmux.shadow."


def _requests(figures: ShadowFigures | None) -> ShadowRequests:
    if figures is None:
        return ShadowRequests(compared=0)
    return ShadowRequests(compared=figures.compared, **figures.outcomes)


def _column(name: str, figures: ColumnFigures) -> ShadowColumn:
    return ShadowColumn(
        name=name,
        rows=figures.rows,
        equal=figures.equal,
        share_equal=figures.equal / figures.rows if figures.rows else None,
        difference=figures.differences.difference_quantiles(),
    )


def _latency(figures: ShadowFigures) -> ShadowLatency | None:
    if not figures.compared:
        return None
    return ShadowLatency(default=_in_ms(figures.default_s), shadow=_in_ms(figures.shadow_s))


def _in_ms(spent: Spread) -> dict[str, float | None]:
    told = spent.latency_quantiles()
    return {name: None if s is None else round(s * 1e3, 3) for name, s in told.items()}


def _course(figures: ShadowFigures) -> list[ShadowStretch]:
    stretches = []
    for minute, counts in sorted(figures.course.stretches.items()):
        named = dict(zip(OUTCOMES, counts, strict=True))
        compared = named["equal"] + named["different"]
        stretches.append(
            ShadowStretch(
                at=_moment(minute * _MINUTE_S),
                seconds=figures.course.minutes * _MINUTE_S,
                agreement=named["equal"] / compared if compared else None,
                **named,
            )
        )
    return stretches


def _shown(each: Disagreement, with_inputs: bool) -> ShadowDisagreement:
    told = each.model_dump(exclude={"at", "columns", "inputs"})
    return ShadowDisagreement(
        at=_moment(each.at),
        columns=list(each.columns),
        inputs=each.inputs if with_inputs else None,
        **told,
    )


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
