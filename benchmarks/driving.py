"""Starting the load as a process of its own, and what it reports."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path

from benchmarks.figures import Figures, figures_of, median_figures
from benchmarks.paths import ROOT
from tests.support.processes import end

_GRACE_S = 60.0


class LoadFailed(Exception):
    """The load could not be made, or was not answered rightly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A request's body, the body that answers it, byte for byte, and the media type of both."""

    body: str
    answer: str
    media_type: str = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """Who asks what, and for how long: a warm-up, then rounds without a pause between them."""

    url: str
    exchanges: Sequence[Exchange]
    callers: int
    warm_up_s: float = 2.0
    round_s: float = 4.0
    rounds: int = 3
    times: bool = False
    """Whether the moments at which requests ended are wanted too."""

    @property
    def longest_s(self) -> float:
        """After which the load has surely ended."""
        return self.warm_up_s + self.rounds * self.round_s + _GRACE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """Latencies of the rightly answered requests by round, and all that went wrong.

    `ended` and `failed` are moments since the epoch; `problems` counts what was seen instead of
    the answers.
    """

    round_s: float
    rounds: tuple[tuple[float, ...], ...]
    ended: tuple[float, ...]
    failed: tuple[float, ...]
    problems: dict[str, int]

    @property
    def figures(self) -> Figures:
        """The median of the rounds; raises LoadFailed for a round without an answer."""
        if not all(self.rounds):
            raise LoadFailed(f"a round went by without an answer: {self.problems}")
        medians = median_figures([figures_of(took, self.round_s) for took in self.rounds])
        return replace(medians, failed=len(self.failed))

    def between(self, start: float, stop: float) -> tuple[float, ...]:
        """Latencies of the requests that ended in that time; needs `LoadPlan.times`."""
        took = (each for rounds in self.rounds for each in rounds)
        pairs = zip(self.ended, took, strict=True)
        return tuple(each for ended, each in pairs if start <= ended < stop)


class Load:
    """A load that is running."""

    def __init__(self, process: subprocess.Popen[str], plan: LoadPlan) -> None:
        self._process = process
        self._plan = plan

    def result(self) -> LoadResult:
        """Wait for its end; raises LoadFailed where it broke."""
        try:
            output, errors = self._process.communicate(timeout=self._plan.longest_s)
        except subprocess.TimeoutExpired as error:
            raise LoadFailed("the load did not end") from error
        if self._process.returncode != 0:
            raise LoadFailed(errors[-2000:])
        found = json.loads(output)
        return LoadResult(
            round_s=self._plan.round_s,
            rounds=tuple(tuple(each) for each in found["rounds"]),
            ended=tuple(found["ended"]),
            failed=tuple(found["failed"]),
            problems=found["problems"],
        )


@contextmanager
def driving(plan: LoadPlan) -> Iterator[Load]:
    """The load in the background; ended on the way out if it has not ended by itself."""
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load", str(_written(plan, Path(folder)))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        try:
            yield Load(process, plan)
        finally:
            end(process)  # type: ignore[arg-type]  # a process of text ends like one of bytes


def drive(plan: LoadPlan, *, failures_allowed: bool = False) -> LoadResult:
    """The whole load; raises LoadFailed for a wrong or missing answer unless those are allowed."""
    with driving(plan) as load:
        result = load.result()
    if result.failed and not failures_allowed:
        raise LoadFailed(f"{len(result.failed)} requests failed at {plan.url}: {result.problems}")
    return result


def _written(plan: LoadPlan, folder: Path) -> Path:
    content = asdict(plan) | {"exchanges": [astuple(each) for each in plan.exchanges]}
    path = folder / "plan.json"
    path.write_text(json.dumps(content))
    return path
