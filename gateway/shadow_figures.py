"""How a shadow's answers compare with the default's: figures that add up, as values.

Counted by each ingress process of what it saw since it last told, added up by the sync service,
kept on disk, and read by whoever shows them. All of it is bounded: in columns, bins, stretches of
time and disagreements. Pure; must not import ray, mlflow or fastapi.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict

Outcome = Literal["equal", "different", "failed", "late", "dropped"]
"""What became of a request that the shadow was to have: its answer is as the default's or isn't;
it failed, or came after the deadline; or the shadow wasn't asked, there being too much to do."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

DISAGREEMENTS_KEPT = 20
COLUMNS_KEPT = 64
_STRETCHES_KEPT = 120
_MINUTE_S = 60

_GROWTH = 1.1
_LOG_GROWTH = math.log(_GROWTH)
_LEAST, _MOST = 1e-12, 1e15
_SUM = 1e300
_FEW = 16  # fewer are counted sooner one by one
# Bins of negative numbers are the negatives of these, 0 is the bin of zero.
_FIRST = math.ceil(math.log(_LEAST) / _LOG_GROWTH)
_OFFSET = 1 - _FIRST

_LATENCY_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_DIFFERENCE_SHARES = {"p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}


class ShadowPair(BaseModel):
    """The two versions that are compared, by their numbers and their artifacts, and by which
    tolerance: others under the same numbers, or by another one, are another pair."""

    model_config = ConfigDict(frozen=True)

    default: int
    default_fingerprint: str
    shadow: int
    shadow_fingerprint: str
    tolerance: float | None = None


class Spread(BaseModel):
    """Numbers by their size: bins that grow by a tenth, so that quantiles are known to 5%, with the
    least and the most as they are. (Masson and others, DDSketch, VLDB 2019.)"""

    bins: dict[int, int] = {}
    total: float = 0.0
    least: float | None = None
    most: float | None = None

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.bins.values())

    def observe(self, value: float) -> None:
        """Count one finite number."""
        place = _bin_of(value)
        self.bins[place] = self.bins.get(place, 0) + 1
        self._reach(value, value, value)

    def observe_all(self, numbers: np.ndarray | Sequence[float]) -> None:
        """Count finite numbers, many at once."""
        if len(numbers) < _FEW:
            for number in numbers:
                self.observe(float(number))
            return
        values = np.asarray(numbers)
        sizes = np.clip(np.abs(values), _LEAST, _MOST)
        places = np.ceil(np.log(sizes) / _LOG_GROWTH).astype(np.int64) + _OFFSET
        signed = np.where(np.abs(values) < _LEAST, 0, np.where(values < 0, -places, places))
        for place, count in zip(*np.unique(signed, return_counts=True), strict=True):
            self.bins[int(place)] = self.bins.get(int(place), 0) + int(count)
        with np.errstate(over="ignore"):
            total = float(values.sum())
        self._reach(float(values.min()), float(values.max()), total)

    def add(self, other: Spread) -> None:
        """Count what another has counted."""
        for place, count in other.bins.items():
            self.bins[place] = self.bins.get(place, 0) + count
        if other.least is not None and other.most is not None:
            self._reach(other.least, other.most, other.total)

    def _reach(self, least: float, most: float, total: float) -> None:
        self.least = least if self.least is None else min(self.least, least)
        self.most = most if self.most is None else max(self.most, most)
        # What isn't finite could not be read back from JSON.
        self.total = min(_SUM, max(-_SUM, self.total + total))

    def quantile(self, share: float) -> float | None:
        """The number that so many of all are at most; None where there are none."""
        left = share * self.count
        if self.least is None or self.most is None:
            return None
        for place in sorted(self.bins):
            left -= self.bins[place]
            if left <= 0:
                return min(self.most, max(self.least, _number_of(place)))
        return self.most

    def latency_quantiles(self) -> dict[str, float | None]:
        """The usual ones of times."""
        return {name: self.quantile(share) for name, share in _LATENCY_SHARES.items()}

    def difference_quantiles(self) -> dict[str, float | None]:
        """Those of differences, which may be of either sign, with both ends."""
        if not self.bins:
            return {}
        inner = {name: self.quantile(share) for name, share in _DIFFERENCE_SHARES.items()}
        return {"least": self.least, **inner, "most": self.most}

    def counts_up_to(self, bounds: Sequence[float]) -> list[int]:
        """How many fall between each bound and the one before, and above the last: a histogram."""
        counts = [0] * (len(bounds) + 1)
        for place, count in self.bins.items():
            counts[bisect_left(bounds, _number_of(place))] += count
        return counts


def _bin_of(value: float) -> int:
    size = abs(value)
    if size < _LEAST:
        return 0
    place = math.ceil(math.log(min(size, _MOST)) / _LOG_GROWTH) + _OFFSET
    return -place if value < 0 else place


def _number_of(place: int) -> float:
    if place == 0:
        return 0.0
    size = 2 * _GROWTH ** (abs(place) - _OFFSET) / (_GROWTH + 1)
    return math.copysign(size, place)


class ColumnFigures(BaseModel):
    """One column of the answers, over all rows that were compared. `differences` are those of
    numbers, the shadow's less the default's; empty where it has others."""

    rows: int = 0
    equal: int = 0
    differences: Spread = Spread()

    def add(self, other: ColumnFigures) -> None:
        """Count what another has counted."""
        self.rows += other.rows
        self.equal += other.equal
        self.differences.add(other.differences)


class Disagreement(BaseModel):
    """A row on which the two differ, at Unix time `at`: both answers by column, as JSON's values,
    and what was asked where that may be kept. Long values are cut, as texts that end in `…`."""

    model_config = ConfigDict(frozen=True)

    at: float
    request_id: str
    row: int
    columns: tuple[str, ...]
    default: dict[str, Any]
    shadow: dict[str, Any]
    inputs: dict[str, Any] | None = None


class Failure(BaseModel):
    """What the shadow failed with last."""

    model_config = ConfigDict(frozen=True)

    at: float
    reason: str


class Course(BaseModel):
    """What became of requests over time: how many of each of `OUTCOMES`, by the minute at which a
    stretch of `minutes` begins. Where there are too many stretches, each gets twice as long."""

    minutes: int = 1
    stretches: dict[int, list[int]] = {}

    def note(self, at: float, outcome: Outcome) -> None:
        """Count one request at that Unix time."""
        counts = [0] * len(OUTCOMES)
        counts[OUTCOMES.index(outcome)] = 1
        self._add(int(at // _MINUTE_S), counts)
        self._shorten()

    def add(self, other: Course) -> None:
        """Count what another has counted."""
        while self.minutes < other.minutes:
            self._double()
        for minute, counts in other.stretches.items():
            self._add(minute, counts)
        self._shorten()

    def _add(self, minute: int, counts: Iterable[int]) -> None:
        start = minute - minute % self.minutes
        before = self.stretches.get(start, [0] * len(OUTCOMES))
        self.stretches[start] = [a + b for a, b in zip(before, counts, strict=True)]

    def _shorten(self) -> None:
        while len(self.stretches) > _STRETCHES_KEPT:
            self._double()

    def _double(self) -> None:
        before, self.stretches = self.stretches, {}
        self.minutes *= 2
        for minute, counts in before.items():
            self._add(minute, counts)


class ShadowFigures(BaseModel):
    """Everything that is known of one pair, from Unix time `since` on. `default_s` and `shadow_s`
    are the seconds that calls took in either's process."""

    pair: ShadowPair
    since: float
    outcomes: dict[Outcome, int] = {}
    columns: dict[str, ColumnFigures] = {}
    default_s: Spread = Spread()
    shadow_s: Spread = Spread()
    course: Course = Course()
    disagreements: list[Disagreement] = []
    failure: Failure | None = None

    @property
    def compared(self) -> int:
        """How many requests have two answers."""
        return self.outcomes.get("equal", 0) + self.outcomes.get("different", 0)

    @property
    def agreement(self) -> float | None:
        """Which share of these are equal; None where there are none."""
        return self.outcomes.get("equal", 0) / self.compared if self.compared else None

    def note(self, outcome: Outcome, at: float) -> None:
        """Count what became of one request."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        self.course.note(at, outcome)

    def column(self, name: str) -> ColumnFigures | None:
        """The figures of a column, to be added to; None for one of too many."""
        found = self.columns.get(name)
        if found is None and len(self.columns) < COLUMNS_KEPT:
            found = self.columns[name] = ColumnFigures()
        return found

    def keep(self, disagreement: Disagreement) -> None:
        """Have one more, in the place of the oldest where there are enough."""
        self.disagreements = [*self.disagreements, disagreement][-DISAGREEMENTS_KEPT:]

    def add(self, other: ShadowFigures) -> None:
        """Count what another process, or another time, has counted of the same pair."""
        self.since = min(self.since, other.since)
        for outcome, count in other.outcomes.items():
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + count
        for name, figures in other.columns.items():
            column = self.column(name)
            if column is not None:
                column.add(figures)
        self.default_s.add(other.default_s)
        self.shadow_s.add(other.shadow_s)
        self.course.add(other.course)
        together = sorted((*self.disagreements, *other.disagreements), key=lambda each: each.at)
        self.disagreements = together[-DISAGREEMENTS_KEPT:]
        if other.failure is not None and (
            self.failure is None or self.failure.at <= other.failure.at
        ):
            self.failure = other.failure
