"""Reports of shadows: each arrives once, whatever becomes of the calls."""

from __future__ import annotations

from typing import Any

from deployments.ingress.shadow_reports import ShadowReports
from deployments.serve.ports import CallLost, Loss
from gateway.shadow_figures import ShadowFigures, ShadowPair

PAIR = ShadowPair(default=1, default_fingerprint="a", shadow=2, shadow_fingerprint="b")


class Sync:
    """Hears reports, and may lose the answers."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.loses = False
        self.takes = True

    async def call(self, method: str, report: dict[str, Any]) -> bool:
        assert method == "take_shadows"
        self.heard.append(report)
        if self.loses:
            raise CallLost(Loss.INSIDE)
        return self.takes


class Counted:
    """What was counted between two reports."""

    def __init__(self) -> None:
        self.figures: dict[str, ShadowFigures] = {}

    def take(self) -> dict[str, ShadowFigures]:
        taken, self.figures = self.figures, {}
        return taken

    def note(self) -> None:
        figures = self.figures.setdefault("m", ShadowFigures(pair=PAIR, since=1.0))
        figures.note("equal", 60.0)


async def test_nothing_is_told_where_nothing_was_counted() -> None:
    """A gateway without shadows makes no calls."""
    sync, counted = Sync(), Counted()
    await ShadowReports(sync, counted.take).tell()  # type: ignore[arg-type]
    assert sync.heard == []


async def test_a_report_whose_answer_is_lost_is_told_again_as_it_was() -> None:
    """Under the same number, before what was counted meanwhile."""
    sync, counted = Sync(), Counted()
    reports = ShadowReports(sync, counted.take)  # type: ignore[arg-type]
    counted.note()
    sync.loses = True
    await reports.tell()
    counted.note()
    counted.note()
    sync.loses = False
    await reports.tell()
    await reports.tell()
    await reports.tell()
    assert [each["number"] for each in sync.heard] == [1, 1, 2]
    assert sync.heard[0] == sync.heard[1]
    assert len({each["host"] for each in sync.heard}) == 1
    told = [ShadowFigures.model_validate(each["figures"]["m"]) for each in sync.heard]
    assert [each.outcomes for each in told] == [{"equal": 1}, {"equal": 1}, {"equal": 2}]


async def test_a_report_that_isnt_taken_is_told_again() -> None:
    """A sync service that has no catalog yet can't count it."""
    sync, counted = Sync(), Counted()
    reports = ShadowReports(sync, counted.take)  # type: ignore[arg-type]
    counted.note()
    sync.takes = False
    await reports.tell()
    sync.takes = True
    await reports.tell()
    await reports.tell()
    assert [each["number"] for each in sync.heard] == [1, 1]
