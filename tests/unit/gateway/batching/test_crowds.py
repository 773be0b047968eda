"""Callers who came together, and travel as one call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain, cycle

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.batching.batcher import MicroBatcher
from gateway.batching.cost_model import BatchLimits
from gateway.contract.outputs import split_output
from gateway.errors import DeadlineExceeded, GatewayError, ModelFailed, ModelUnavailable
from gateway.ports import CallResult, Queued
from tests.support.batched_models import (
    BAD,
    ONE_SLOT,
    Model,
    Moody,
    Shy,
    answered,
    call,
    outcome,
    turns,
    warmed,
)
from tests.support.server_in_memory import until


class Crowd:
    """Callers with some rows each, who are enqueued together."""

    def __init__(self, batcher: MicroBatcher, each: Sequence[Sequence[float]]) -> None:
        self.each = each
        self.apart: Sequence[Queued] | None = None
        sizes = [len(rows) for rows in each]
        queued = batcher.enqueue_together(call(*chain(*each)), sizes, self._take_apart)
        self.is_taken = queued is not None
        if queued is not None:
            self.queued = queued

    def _take_apart(self, calls: Sequence[Queued]) -> None:
        assert self.apart is None
        self.apart = calls

    async def outcomes(self) -> list[list[float] | type[BaseException]]:
        """What each caller has got."""
        try:
            result = await asyncio.shield(self.queued.future)
        except asyncio.CancelledError:
            assert self.apart is not None
            return [await outcome(queued.future) for queued in self.apart]
        except GatewayError as error:
            return [type(error) for _ in self.each]
        outputs = split_output(result.output, [len(rows) for rows in self.each])
        return [answered(CallResult(output=output)) for output in outputs]


async def test_they_are_one_call() -> None:
    """Of all their rows in their order, with one answer; nobody is asked for apart."""
    model = Model()
    crowd = Crowd(await warmed(model), [[1.0], [2.0, 3.0], [4.0]])
    assert await crowd.outcomes() == [[2.0], [4.0, 6.0], [8.0]]
    assert model.calls == [[1.0, 2.0, 3.0, 4.0]]
    assert crowd.apart is None


async def test_one_who_is_at_fault_fails_alone() -> None:
    """The others are answered, in calls without those rows."""
    model = Model()
    crowd = Crowd(await warmed(model), [[1.0], [2.0, BAD], [4.0]])
    assert await crowd.outcomes() == [[2.0], ModelFailed, [8.0]]
    assert model.calls[-1] in ([4.0], [1.0])


async def test_those_who_do_not_fit_into_one_call_go_in_several() -> None:
    """Each caller's rows in one of them."""
    model = Model()
    crowd = Crowd(await warmed(model, ONE_SLOT), [[float(i), 0.5] for i in range(6)])
    assert await crowd.outcomes() == [[2.0 * i, 1.0] for i in range(6)]
    assert [len(rows) for rows in model.calls] == [8, 4]


async def test_a_model_that_takes_no_company_answers_each_alone() -> None:
    """Which is noticed: those who wait by then are asked for apart, too."""
    model = Shy()
    batcher = await warmed(model)
    crowds = [Crowd(batcher, [[1.0], [2.0]]), Crowd(batcher, [[3.0], [4.0]])]
    assert [await crowd.outcomes() for crowd in crowds] == [[[2.0], [4.0]], [[6.0], [8.0]]]
    assert batcher.enqueue_together(call(1.0, 2.0), [1, 1], lambda calls: None) is None


async def test_a_call_that_all_of_them_have_left_is_cancelled() -> None:
    """And gives its slot back."""
    model = Model(turns=lambda: 50)
    batcher = await warmed(model)
    crowd = Crowd(batcher, [[1.0], [2.0]])
    assert list(batcher.queues()) == [(("m", 1), 0)]
    await turns(3)
    crowd.queued.leave()
    await turns(3)
    assert (model.cancelled, model.at_once) == (1, 0)


async def test_who_has_been_told_is_not_asked_for_again() -> None:
    """Callers for whom a call came too late are in it still: when it fails, for those who came
    alone, they are told of no calls of their own."""
    model = Model()
    batcher = await warmed(model)
    first = asyncio.ensure_future(batcher.submit(call(1.0)))
    await turns(1)
    late, other = Crowd(batcher, [[2.0], [3.0]]), Crowd(batcher, [[4.0], [BAD]])
    await until(lambda: len(model.calls) == 2)
    assert model.calls[1] == [2.0, 3.0, 4.0, BAD]
    late.queued.future.set_exception(DeadlineExceeded("Too late."))
    late.queued.leave()
    assert await other.outcomes() == [[8.0], ModelFailed]
    assert late.apart is None
    assert await late.outcomes() == [DeadlineExceeded] * 2
    assert await outcome(first) == [2.0]


async def test_all_of_them_are_counted_while_they_wait() -> None:
    """As many as they are."""
    batcher = await warmed(Model())
    crowds = [Crowd(batcher, [[1.0], [2.0], [3.0]]) for _ in range(3)]
    assert list(batcher.queues()) == [(("m", 1), 6)]
    for crowd in crowds:
        assert await crowd.outcomes() == [[2.0], [4.0], [6.0]]


async def test_nothing_is_taken_before_the_first_answer() -> None:
    """Each waits for the version's start on its own terms."""
    batcher = MicroBatcher(Model())
    assert batcher.enqueue_together(call(1.0, 2.0), [1, 1], lambda calls: None) is None


class Growing(Model):
    """Gives the same three values, whatever it is asked."""

    def answer(self, rows: Sequence[float], params: object) -> CallResult:
        return CallResult(output=("values", np.array([7.0, 8.0, 9.0])), timings_ms={"model": 1.0})


async def test_an_answer_that_is_not_one_for_each_row_is_nobody_s() -> None:
    """Each is asked for alone, and gets all of its own; also where the number fits by chance."""
    for each in ([[1.0], [2.0]], [[1.0], [2.0], [3.0]]):
        batcher = MicroBatcher(Growing(), ONE_SLOT)
        await batcher.submit(call(0.0, 0.0, 0.0))
        found = await Crowd(batcher, each).outcomes()
        assert found == [[7.0, 8.0, 9.0]] * len(each)


@settings(max_examples=80)
@given(
    crowds=st.lists(
        st.lists(
            st.lists(st.sampled_from([1.0, 2.0, 3.0, 4.0, BAD]), min_size=1, max_size=3),
            min_size=1,
            max_size=6,
        ),
        min_size=1,
        max_size=5,
    ),
    singles=st.lists(st.sampled_from([1.0, 2.0, BAD]), max_size=4),
    pace=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    limits=st.builds(
        BatchLimits,
        max_rows=st.integers(1, 12),
        max_bytes=st.just(10_000),
        max_part_ms=st.sampled_from([0.5, 50.0]),
        min_part_rows=st.integers(1, 4),
        calls_of_one_replica=st.integers(1, 2),
        few_callers=st.integers(0, 16),
        turns=st.integers(0, 4),
    ),
    moods=st.lists(
        st.sampled_from([None, None, ModelUnavailable, ModelFailed]), min_size=1, max_size=6
    ),
    kind=st.sampled_from([Model, Shy]),
)
async def test_who_came_together_gets_what_each_would_get_alone(
    crowds: list[list[list[float]]],
    singles: list[float],
    pace: list[int],
    limits: BatchLimits,
    moods: list[type[GatewayError] | None],
    kind: type[Model],
) -> None:
    """Beside others who came alone, under failing rows, models that take no company, bounds of any
    size and backends that fail by chance; and no slot is lost."""
    steps = iter(pace * 1000)
    model = kind(turns=lambda: next(steps))
    moody = Moody(model, chain([None], cycle(moods)))
    batcher = MicroBatcher(moody, limits)
    await batcher.submit(call(0.0))
    async with asyncio.timeout(20):
        alone = [asyncio.ensure_future(batcher.submit(call(row))) for row in singles]
        for each in crowds:
            crowd = Crowd(batcher, each)
            if not crowd.is_taken:
                break  # it isn't warm any more, or takes no company
            for rows, got in zip(each, await crowd.outcomes(), strict=True):
                if isinstance(got, list):
                    assert got == [2 * row for row in rows]
                    assert BAD not in rows
                else:
                    shy = kind is Shy and len(rows) > 1
                    assert got in moody.raised or (got is ModelFailed and (BAD in rows or shy))
        await asyncio.gather(*map(outcome, alone))
        for _ in range(1000):
            await turns(1 if model.at_once else 0)
        assert list(batcher.queues()) == [(("m", 1), 0)]
        moody.calm()
        assert answered(await batcher.submit(call(1.0))) == [2.0]
