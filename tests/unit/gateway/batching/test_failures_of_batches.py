"""Calls that travel together and fail: who is told what."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from gateway.batching.batcher import MicroBatcher
from gateway.errors import (
    DeadlineExceeded,
    InvalidInput,
    InvalidModelOutput,
    ModelFailed,
    ModelUnavailable,
    Violation,
)
from gateway.ports import CallResult
from tests.support.batched_models import BAD, ONE_SLOT, Model, Shy, answered, call, outcome, warmed


async def test_the_guilty_row_is_alone_in_the_end() -> None:
    """One row that makes the model fail costs its neighbours nothing."""
    model = Model()
    batcher = await warmed(model)
    rows = [1.0, 2.0, 3.0, BAD, 5.0, 6.0]
    found = await asyncio.gather(*(outcome(batcher.submit(call(row))) for row in rows))
    assert found == [ModelFailed if row == BAD else [2 * row] for row in rows]
    await asyncio.gather(*(batcher.submit(call(row)) for row in (1.0, 2.0, 3.0)))
    assert model.calls[-1] == [
        1.0,
        2.0,
        3.0,
    ]  # a bad row says nothing about the model: still shared


class Lumping(Model):
    """Answers one number however many rows there are."""

    def answer(self, rows: Sequence[float], params: Mapping[str, Any]) -> CallResult:
        return CallResult(output=("values", [sum(rows)]))


@pytest.mark.parametrize(("model", "factor"), [(Lumping(), 1.0), (Shy(), 2.0)])
async def test_a_model_that_takes_no_company_is_noticed(model: Model, factor: float) -> None:
    """Where the output isn't one per row, or only company fails, calls go one by one from then."""
    batcher = await warmed(model)
    for _ in range(2):
        results = await asyncio.gather(*(batcher.submit(call(float(i))) for i in range(4)))
        assert [answered(result) for result in results] == [[factor * i] for i in range(4)]
    assert model.calls[-4:] == [[0.0], [1.0], [2.0], [3.0]]


async def test_a_long_list_of_a_lumping_model_is_an_invalid_output() -> None:
    """Parts that aren't answered row by row can't be put together, and nobody guesses."""
    batcher = await warmed(Lumping())
    with pytest.raises(InvalidModelOutput):
        await batcher.submit(call(*map(float, range(20))))


async def test_a_model_that_is_away_is_told_to_all_who_asked() -> None:
    """An error that isn't about rows goes to everyone in the call, without trying them apart."""

    class Away(Model):
        def answer(self, rows: Sequence[float], params: Mapping[str, Any]) -> CallResult:
            if len(self.calls) > 0 and rows != [0.0]:
                raise ModelUnavailable("Its processes do not answer.", retry_after_s=1.0)
            return super().answer(rows, params)

    model = Away()
    batcher = await warmed(model)
    found = await asyncio.gather(*(outcome(batcher.submit(call(float(i)))) for i in (0, 1, 2, 3)))
    assert found == [[0.0], ModelUnavailable, ModelUnavailable, ModelUnavailable]
    assert model.calls == [[0.0], [1.0, 2.0, 3.0]]


@pytest.mark.parametrize("bad", [{BAD}, {BAD, 1.0, 2.0}])
async def test_an_unexpected_failure_is_that_of_the_callers_whose_rows_cause_it(
    bad: set[float],
) -> None:
    """A bug below leaves nobody waiting, and fails nobody whose own rows don't meet it."""

    class Broken(Model):
        def answer(self, rows: Sequence[float], params: Mapping[str, Any]) -> CallResult:
            if bad & set(rows):
                raise ZeroDivisionError
            return super().answer(rows, params)

    batcher = await warmed(Broken())
    rows = [0.0, 1.0, BAD, 2.0]
    found = await asyncio.gather(
        *(batcher.submit(call(row)) for row in rows), return_exceptions=True
    )
    kinds = [ZeroDivisionError if row in bad else CallResult for row in rows]
    assert [type(each) for each in found] == kinds
    assert answered(await batcher.submit(call(3.0))) == [6.0]


async def test_what_a_model_refuses_is_told_to_its_caller_alone() -> None:
    """Of callers who share a call only the one hears of it whose row it is, by that row's number in
    the caller's own list, also where the list went in parts."""

    class Choosy(Model):
        def answer(self, rows: Sequence[float], params: Mapping[str, Any]) -> CallResult:
            if BAD in rows:
                refused = Violation(pointer=f"/{rows.index(BAD)}/x", message="Not below 0.")
                raise InvalidInput((refused,))
            return super().answer(rows, params)

    batcher = await warmed(Choosy())
    callers = [call(1.0), call(BAD), call(*range(9), BAD, 3.0), call(2.0)]
    found = await asyncio.gather(*map(batcher.submit, callers), return_exceptions=True)
    refusals = [each for each in found if isinstance(each, InvalidInput)]
    assert [each.violations[0].pointer for each in refusals] == ["/0/x", "/9/x"]
    assert [answered(each) for each in found if isinstance(each, CallResult)] == [[2.0], [4.0]]


async def test_a_half_that_fails_by_itself_fails_nobody_else() -> None:
    """What keeps one half of a failed batch from its answer is told to that half alone."""

    class Busy(Model):
        def answer(self, rows: Sequence[float], params: Mapping[str, Any]) -> CallResult:
            if rows == [1.0, 2.0]:
                raise DeadlineExceeded("The model was busy with others until the deadline.")
            return super().answer(rows, params)

    batcher = await warmed(Busy())
    rows = [9.0, 1.0, 2.0, 3.0, BAD]
    found = await asyncio.gather(*(outcome(batcher.submit(call(row))) for row in rows))
    assert found == [[18.0], DeadlineExceeded, DeadlineExceeded, [6.0], ModelFailed]


@pytest.mark.parametrize("load_failed", [True, False])
async def test_the_other_half_is_asked_unless_the_version_cannot_be_loaded(
    load_failed: bool,
) -> None:
    """A process that was away may be back for the next half; a load that failed is for all."""

    class Away(Model):
        def answer(self, rows: Sequence[float], params: Mapping[str, Any]) -> CallResult:
            if rows == [1.0, 2.0]:
                raise ModelUnavailable("Not now.", load_failed=load_failed)
            return super().answer(rows, params)

    model = Away()
    batcher = await warmed(model)
    rows = [9.0, 1.0, 2.0, 3.0, BAD]
    found = await asyncio.gather(*(outcome(batcher.submit(call(row))) for row in rows))
    other = [ModelUnavailable, ModelUnavailable] if load_failed else [[6.0], ModelFailed]
    assert found == [[18.0], ModelUnavailable, ModelUnavailable, *other]
    assert len(model.calls) == (3 if load_failed else 6)


class Three(Model):
    """Answers three values, whatever it is asked."""

    def answer(self, rows: Sequence[float], params: Mapping[str, Any]) -> CallResult:
        return CallResult(output=("values", np.array([10.0, 20.0, 30.0])))


@pytest.mark.parametrize("first", [(1.0,), (1.0, 2.0, 3.0)])
async def test_a_fixed_number_of_values_is_never_dealt_out(first: tuple[float, ...]) -> None:
    """That a batch has as many rows as the model always gives values means nothing."""
    batcher = MicroBatcher(Three(), ONE_SLOT)
    await batcher.submit(call(*first))
    asked = [call(*first), *(call(float(i)) for i in range(3))]
    results = await asyncio.gather(*map(batcher.submit, asked))
    assert [answered(result) for result in results] == [[10.0, 20.0, 30.0]] * 4
