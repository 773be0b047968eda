"""Callers of calls that travel together: who leaves, and crowds of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, cycle
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.batching.batcher import MicroBatcher
from gateway.batching.cost_model import BatchLimits
from gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    ModelFailed,
    ModelUnavailable,
)
from gateway.ports import CallResult
from tests.support.batched_models import (
    BAD,
    IMPATIENT_S,
    Model,
    Moody,
    Shy,
    answered,
    call,
    outcome,
    turns,
    warmed,
)


async def test_a_caller_who_leaves_disturbs_nobody() -> None:
    """One of those who share a call goes away: the others are answered."""
    batcher = await warmed(Model())
    tasks = [asyncio.create_task(batcher.submit(call(float(i)))) for i in range(5)]
    await turns(5)
    tasks[2].cancel()
    found = [await outcome(task) for task in tasks]
    assert found == [[0.0], [2.0], asyncio.CancelledError, [6.0], [8.0]]


async def test_rows_that_nobody_waits_for_are_not_sent() -> None:
    """Who leaves while waiting for a slot costs the model nothing."""
    model = Model()
    batcher = await warmed(model)
    tasks = [asyncio.create_task(batcher.submit(call(float(i)))) for i in range(4)]
    await turns(1)
    tasks[1].cancel()
    tasks[2].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert model.calls == [[0.0], [3.0]]


async def test_a_call_that_all_have_left_is_cancelled() -> None:
    """What nobody waits for any more gives its slot back."""
    model = Model(turns=lambda: 50)
    batcher = await warmed(model)
    tasks = [asyncio.create_task(batcher.submit(call(float(i)))) for i in range(3)]
    await turns(60)
    tasks[1].cancel()
    tasks[2].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await turns(3)
    assert (model.cancelled, model.at_once) == (1, 0)
    assert answered(await batcher.submit(call(1.0))) == [2.0]


async def test_who_leaves_in_the_turn_in_which_they_came_keep_no_slot() -> None:
    """Their calls have not begun, so nothing of them would end: the next one waited for ever."""
    model = Model()
    batcher = await warmed(model)
    for number in range(20):
        queued = batcher.enqueue(call(float(number)))
        assert queued is not None
        queued.leave()
        await turns(number % 3)
    async with asyncio.timeout(5.0):
        assert answered(await batcher.submit(call(1.0))) == [2.0]
    assert [0.0] not in model.calls


async def test_a_shared_call_is_bound_to_no_caller_s_context() -> None:
    """What a caller's request carries in context variables doesn't reach its neighbours' rows."""
    from contextvars import ContextVar

    whose: ContextVar[str] = ContextVar("whose", default="nobody")
    seen: list[str] = []

    class Looking(Model):
        def answer(self, rows: Sequence[float], params: Mapping[str, Any]) -> CallResult:
            seen.append(whose.get())
            return super().answer(rows, params)

    batcher = await warmed(Looking())
    seen.clear()

    async def caller(name: str, row: float) -> None:
        whose.set(name)
        await batcher.submit(call(row))

    await asyncio.gather(*(caller(f"caller {i}", float(i)) for i in range(4)))
    assert seen == ["caller 0", "nobody"]


@dataclass(frozen=True)
class Caller:
    """What one caller sends, after how many turns, after how many more it leaves, and how patient
    it is."""

    rows: tuple[float, ...]
    offset: int
    after: int
    stays: int | None
    timeout_s: float


callers = st.builds(
    Caller,
    rows=st.one_of(
        st.tuples(st.sampled_from([1.0, 2.0, 3.0, BAD])),
        st.lists(st.sampled_from([1.0, 2.0, 3.0, 4.0, BAD]), min_size=1, max_size=20).map(tuple),
    ),
    offset=st.integers(0, 1),
    after=st.integers(0, 6),
    stays=st.one_of(st.none(), st.none(), st.integers(0, 12)),
    timeout_s=st.sampled_from([IMPATIENT_S, 60.0]),
)


@settings(max_examples=120)
@given(
    crowd=st.lists(callers, min_size=1, max_size=12),
    pace=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    limits=st.builds(
        BatchLimits,
        max_rows=st.integers(1, 12),
        max_bytes=st.just(10_000),
        max_part_ms=st.sampled_from([0.5, 50.0]),
        max_growth=st.sampled_from([0.5, 8.0]),
        min_part_rows=st.integers(1, 4),
        calls_of_one_replica=st.integers(1, 2),
        calls_per_replica=st.integers(1, 3),
        few_callers=st.integers(0, 16),
        turns=st.integers(0, 4),
    ),
    replicas=st.integers(1, 3),
    moods=st.lists(
        st.sampled_from([None, None, DeadlineExceeded, ModelUnavailable, ModelFailed]),
        min_size=1,
        max_size=8,
    ),
    kind=st.sampled_from([Model, Shy]),
)
async def test_a_crowd_gets_what_each_would_get_alone(
    crowd: list[Caller],
    pace: list[int],
    limits: BatchLimits,
    replicas: int,
    moods: list[type[GatewayError] | None],
    kind: type[Model],
) -> None:
    """Callers at once are answered as callers one after another are, under failing rows, models
    that take no company, lists, params, any number of slots, backends that fail by chance, and
    callers who leave at any moment; an error of the deadline is only for who had that deadline."""
    steps = iter(pace * 1000)
    model = kind(turns=lambda: next(steps))
    moody = Moody(model, chain([None], cycle(moods)))
    batcher = MicroBatcher(moody, limits)
    await batcher.submit(call(0.0, max_replicas=replicas))

    async def one(caller: Caller) -> list[float] | type[BaseException]:
        await turns(caller.after)
        fields = {"timeout_s": caller.timeout_s, "max_replicas": replicas}
        asked = call(*caller.rows, params={"offset": caller.offset}, **fields)
        task = asyncio.ensure_future(batcher.submit(asked))
        if caller.stays is not None:
            await turns(caller.stays)
            task.cancel()
        return await outcome(task)

    async with asyncio.timeout(20):
        found = await asyncio.gather(*map(one, crowd))
        for caller, got in zip(crowd, found, strict=True):
            right = [2 * row + caller.offset for row in caller.rows]
            if got is asyncio.CancelledError:
                assert caller.stays is not None
            elif got is DeadlineExceeded:
                assert caller.timeout_s == IMPATIENT_S
                assert got in moody.raised
            elif got is ModelUnavailable:
                assert got in moody.raised
            elif got is ModelFailed:
                # Alone a list fails with a model that takes one row; in parts it may do better.
                shy = kind is Shy and len(caller.rows) > 1
                assert BAD in caller.rows or shy or got in moody.raised
            else:
                assert BAD not in caller.rows
                assert got == right
        await turns(30)
    assert model.at_once == 0
    assert list(batcher.queues()) == [(("m", 1), 0)]
    moody.calm()
    assert answered(await batcher.submit(call(1.0, max_replicas=replicas))) == [2.0]
