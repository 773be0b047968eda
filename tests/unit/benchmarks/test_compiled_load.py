"""What wrk is told, and what it told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import rounds
from benchmarks.compiled_load import CompiledRound, round_of, script_of
from benchmarks.driving import LoadFailed, LoadPlan
from benchmarks.figures import Figures

OUTPUT = """Running 1s test
Requests/sec:   4.00

{"answered": 5, "refused": 1, "lost": 2, "seconds": 1.25, "p50_ms": 1.5, "p99_ms": 9.0}
"""


def test_refused_requests_are_no_answers() -> None:
    """wrk counts every answer as a request that was completed."""
    assert round_of(OUTPUT) == CompiledRound(
        answered=4, refused=1, lost=2, seconds=1.25, p50_ms=1.5, p99_ms=9.0
    )


def test_bodies_are_written_as_they_are() -> None:
    """JSON's quotes and backslashes mean nothing to a long string of Lua's."""
    assert r'{ [==[{"a": "\u00fc]"}]==], [==[2]==] }' in script_of([r'{"a": "\u00fc]"}', "2"])


def test_who_takes_most_of_a_round_is_given_longer_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And who still answers nobody can't be measured."""
    asked: list[float] = []

    def load(plan: LoadPlan, seconds: float) -> tuple[Figures, int]:
        asked.append(seconds)
        answered = 4 if len(asked) in (3, 4, 5) else 0
        return Figures(per_s=1.0, p50_ms=1.0, p99_ms=1.0), answered

    monkeypatch.setattr(rounds, "_compiled", load)
    monkeypatch.setattr(rounds, "_by_ours", load)
    monkeypatch.setattr(rounds, "_cpu_s", lambda _session: 0.0)
    plan = LoadPlan(url="http://127.0.0.1:9/", exchanges=(), callers=2, rounds=1, round_s=2.0)
    assert rounds.measured_rounds(plan, session=0).cpu_s_per_1000 is None
    assert asked == [plan.warm_up_s, 2.0, 10.0]
    slow = replace(plan, round_s=0.001)
    asked[:] = [0.0, 0.0]
    rounds.measured_rounds(slow, session=0)
    assert asked[2:] == [plan.warm_up_s, 0.001, 0.005]
    with pytest.raises(LoadFailed, match="without an answer"):
        rounds.measured_rounds(plan, session=0)
