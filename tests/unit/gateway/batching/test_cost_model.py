"""How many rows a call may have, by what rows cost so far."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np
import pytest

from gateway.batching.batcher import MicroBatcher
from gateway.batching.cost_model import BatchLimits, RowCosts
from gateway.ports import Call, CallResult
from tests.unit.gateway.batching.test_batcher import answered, call, turns


def spent(ms: float, rows: int, row_bytes: int = 8) -> CallResult:
    """An answer that took so long and is so large."""
    values = np.zeros((rows, row_bytes), dtype=np.uint8)
    return CallResult(output=("values", values), timings_ms={"model": ms})


def costs(
    ms_of: Callable[[int], float], *sizes: int, patience_s: float = 60.0, **limits: Any
) -> RowCosts:
    """What calls of so many rows taught, of a model that takes `ms_of` rows."""
    learned = RowCosts(BatchLimits(**limits))
    for rows in sizes:
        learned.learn(call(*[1.0] * rows, patience_s=patience_s), spent(ms_of(rows), rows))
    return learned


def test_a_model_that_gains_by_company_gets_it() -> None:
    """Where a call of 16 rows takes hardly longer than one of a row, many go together, also where
    some have too little time left for that: these do not make it small for all."""
    learned = costs(lambda rows: 10.0 + rows, 1, 1, 8, 16, 16)
    assert learned.shared_rows >= 64
    assert learned.plan([0.2] * 64, 64)[1] >= 32
    needed_s, rows = learned.plan([0.01] * 8 + [0.2] * 64, 72)
    assert needed_s > 0.01
    assert rows >= 32


@pytest.mark.parametrize("sizes", [(1,), (1, 2), (1, 8, 8), (8,), (1, 100, 100)])
def test_rows_that_gain_nothing_do_not_gather(sizes: tuple[int, ...]) -> None:
    """A call of rows that are slow one by one takes some times what a row takes, and no more."""
    learned = costs(lambda rows: 20.0 * rows, *sizes)
    assert 1 <= learned.shared_rows <= 16


def test_a_call_is_as_small_as_its_callers_need() -> None:
    """By what rows took, the answer is there when a third of the deadline is left; who has less
    than that is too late for the call, and where all have, nobody is left out."""
    learned = costs(lambda rows: 5.0 + 20.0 * rows, 1, 50, 50, 50)
    needed_s, rows = learned.plan([1.0] * 64, 64)
    assert rows in range(2, 34)
    assert 0.02 * rows * 1.4 < needed_s <= 1.0
    assert learned.plan([0.001, -1.0], 2) == (-inf, 2)


def test_two_rows_may_always_go() -> None:
    """Where only calls of one row are in time by what is known, company is tried nevertheless."""
    learned = costs(lambda rows: 10.0, 1)
    for left_s in (0.04, 0.03, 0.001):
        assert learned.plan([left_s] * 8, 8)[1] == 2


@pytest.mark.parametrize("ms_per_row", [1_000.0, 5_000.0, 40_000.0])
def test_no_call_of_several_outlasts_patience(ms_per_row: float) -> None:
    """Neither callers together nor a list in parts keep a model busy until it counts as hung."""
    learned = costs(lambda rows: ms_per_row * rows, 1)
    most = max(1, 40_000 // ms_per_row)
    assert learned.part_rows <= most
    assert learned.shared_rows <= most


def test_a_first_call_that_was_slow_is_forgotten() -> None:
    """What a model does once, at its first call, is neither a row's cost nor a call's."""
    learned = costs(lambda rows: 5_000.0 if rows == 1 else 10.0 + rows, 1, *[16] * 4)
    assert learned.shared_rows >= 64
    assert learned.part_rows >= 16


def test_a_call_that_all_have_left_makes_the_next_one_smaller() -> None:
    """Calls that nobody waits for to the end teach too, or they would be as large for ever; what
    they taught is given up when rows prove quicker."""
    learned = costs(lambda rows: 10.0 + rows, 1, 16, 16)
    before = learned.shared_rows
    learned.learn_of_deserted(call(*[1.0] * before), 40.0)  # in time: they left for their own sake
    assert learned.shared_rows == before
    learned.learn_of_deserted(call(*[1.0] * before), 2_000.0)
    assert learned.shared_rows <= before / 4
    for _ in range(100):
        rows = learned.shared_rows
        learned.learn(call(*[1.0] * rows), spent(10.0 + rows, rows))
    assert learned.shared_rows >= before / 2


def test_large_answers_bound_a_call() -> None:
    """Calls have as few rows as their answer needs to stay within `max_answer_bytes`."""
    learned = RowCosts(BatchLimits(max_answer_bytes=100_000))
    learned.learn(call(1.0), spent(1.0, 1, row_bytes=20_000))
    assert (learned.shared_rows, learned.part_rows) == (5, 5)
    for _ in range(200):
        learned.learn(call(*[1.0] * 5), spent(1.0, 5))
    assert learned.shared_rows > 1000
    assert learned.part_rows > 1000


class OneRowAtATime:
    """A backend whose rows take 20 ms each, of a clock that is moved by hand."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.turn = asyncio.Lock()
        self.now_s = 0.0

    async def call(self, call: Call) -> CallResult:
        async with self.turn:
            rows = call.frame.rows
            self.calls.append(rows)
            await turns(3)
            self.now_s += 0.02 * rows
            return CallResult(
                output=("values", call.frame.columns[0]), timings_ms={"model": 20.0 * rows}
            )


async def test_a_crowd_before_a_slow_model_is_answered_in_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 64 callers with a second each, most are answered within it by a model of 20 ms a row."""
    model = OneRowAtATime()
    batcher = MicroBatcher(model)
    monkeypatch.setattr(time, "monotonic", lambda: model.now_s)
    for rows in (1, 2, 2):
        await batcher.submit(call(*[1.0] * rows, timeout_s=1.0))
    began_s = model.now_s
    in_time = 0

    async def one(row: float) -> None:
        nonlocal in_time
        assert answered(await batcher.submit(call(row, timeout_s=1.0))) == [row]
        in_time += model.now_s - began_s <= 1.0

    await asyncio.gather(*(one(float(i)) for i in range(64)))
    assert in_time >= 40
