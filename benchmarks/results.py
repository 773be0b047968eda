"""A run's raw figures, kept as JSON; the documentation is written from them."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.figures import Figures
from benchmarks.machine import machine
from benchmarks.measuring import Effort, ListFigures, Measured
from benchmarks.paths import RESULTS
from benchmarks.scenarios.finding import Finding


@dataclass(frozen=True, kw_only=True)
class Results:
    """All of a run; `left_out` says why for those that could not be measured."""

    effort: Effort
    measured: Sequence[Measured]
    findings: Sequence[Finding] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=machine)
    date: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M"))


def keep(results: Results) -> Path:
    """Write a file of its own; its path."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{results.date.replace(' ', '-').replace(':', '')}.json"
    path.write_text(json.dumps(asdict(results), indent=2))
    return path


def read(path: Path) -> Results:
    """What `keep` has written."""
    found = json.loads(path.read_text())
    return Results(
        effort=Effort(**found["effort"]),
        measured=[_measured(each) for each in found["measured"]],
        findings=[Finding(**each) for each in found["findings"]],
        left_out=found["left_out"],
        machine=found["machine"],
        date=found["date"],
    )


def _measured(found: dict[str, object]) -> Measured:
    levels, lists = found["levels"], found["lists"]
    assert isinstance(levels, dict)
    assert isinstance(lists, list)
    converted = {
        "levels": {int(callers): Figures(**figures) for callers, figures in levels.items()},
        "lists": tuple(ListFigures(**each) for each in lists),
    }
    return Measured(**{**found, **converted})  # type: ignore[arg-type]  # as it was written
