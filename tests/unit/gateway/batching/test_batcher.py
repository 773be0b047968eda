"""Calls that travel together: which, in what order, within which bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from gateway.batching.batcher import MicroBatcher
from gateway.batching.compatibility import ROW_WISE_FLAVORS, is_batched
from gateway.batching.cost_model import BatchLimits
from gateway.catalog import ModelOptions
from gateway.ports import CallResult
from tests.support.batched_models import ONE_SLOT, Model, answered, call, turns, warmed
from tests.support.catalogs import served, version


async def test_a_lone_call_goes_at_once_and_as_it_is() -> None:
    """With a free slot nothing waits and nothing is shared."""
    model = Model()
    batcher = await warmed(model)
    assert answered(await batcher.submit(call(1.0, 2.0))) == [2.0, 4.0]
    assert model.calls == [[1.0, 2.0]]


async def test_calls_that_wait_travel_together() -> None:
    """While the only slot is taken the others gather, and go as one call, in order of arrival."""
    model = Model()
    batcher = await warmed(model)
    results = await asyncio.gather(*(batcher.submit(call(float(i))) for i in range(5)))
    assert [answered(result) for result in results] == [[0.0], [2.0], [4.0], [6.0], [8.0]]
    assert model.calls == [[0.0], [1.0, 2.0, 3.0, 4.0]]


async def test_other_params_never_share_a_call() -> None:
    """What the caller asked for is not lost in company."""
    model = Model()
    batcher = await warmed(model)
    offsets = [0, 1, 1, 2, 1]
    results = await asyncio.gather(
        *(batcher.submit(call(1.0, params={"offset": offset})) for offset in offsets)
    )
    assert [answered(result) for result in results] == [[2.0 + offset] for offset in offsets]
    assert sorted(map(len, model.calls)) == [1, 1, 3]


async def test_params_in_another_order_never_share_a_call() -> None:
    """They reach the model in the order in which they were sent."""
    model = Model()
    batcher = await warmed(model)
    orders = [{"offset": 1}, {"offset": 1, "b": 2}, {"b": 2, "offset": 1}, {"offset": 1, "b": 2}]
    await asyncio.gather(*(batcher.submit(call(1.0, params=params)) for params in orders))
    assert sorted(map(len, model.calls)) == [1, 1, 2]


async def test_nothing_is_shared_before_the_first_answer() -> None:
    """A version that may still have to start is waited for by each caller on its own terms."""
    model = Model()
    batcher = MicroBatcher(model, ONE_SLOT)
    await asyncio.gather(*(batcher.submit(call(float(i))) for i in range(4)))
    assert model.calls == [[0.0], [1.0], [2.0], [3.0]]


async def test_a_long_list_goes_in_bounded_calls_and_comes_back_in_order() -> None:
    """No call has more than `max_rows`, and the caller doesn't notice."""
    model = Model()
    batcher = await warmed(model)
    rows = [float(i) for i in range(30)]
    assert answered(await batcher.submit(call(*rows))) == [2 * row for row in rows]
    assert [len(rows) for rows in model.calls] == [8, 8, 8, 6]


async def test_bytes_bound_a_call_too() -> None:
    """Rows that are large go in smaller calls, but a single one always goes."""
    model = Model()
    batcher = await warmed(model, BatchLimits(max_rows=100, max_bytes=1000))
    wide = [call(float(i), size_bytes=400) for i in range(5)]
    await asyncio.gather(*map(batcher.submit, wide), batcher.submit(call(9.0, size_bytes=5000)))
    assert [len(rows) for rows in model.calls] == [1, 2, 2, 1]


async def test_a_long_list_does_not_starve_single_rows() -> None:
    """A single row that arrives behind a list of many parts goes after the next part or two."""
    model = Model()
    batcher = await warmed(model)
    long = asyncio.create_task(batcher.submit(call(*map(float, range(80)))))
    await turns(1)
    short = asyncio.create_task(batcher.submit(call(500.0)))
    assert answered(await short) == [1000.0]
    assert not long.done()
    assert len(model.calls) <= 4
    assert len(answered(await long)) == 80


async def test_a_list_of_a_slow_model_goes_in_smaller_parts() -> None:
    """By what rows took so far no part takes much longer than others may have to wait."""

    class Slow(Model):
        def answer(self, rows: Sequence[float], params: Mapping[str, Any]) -> CallResult:
            result = super().answer(rows, params)
            return CallResult(output=result.output, timings_ms={"model": 1.0 + len(rows)})

    model = Slow()
    limits = BatchLimits(max_rows=1000, max_part_ms=5.0, min_part_rows=2)
    batcher = await warmed(model, limits)
    rows = [float(i) for i in range(100)]
    for _ in range(2):  # nothing is known before the first
        assert answered(await batcher.submit(call(*rows))) == [2 * row for row in rows]
    assert [len(rows) for rows in model.calls] == [100] + [5] * 20


async def test_single_rows_say_nothing_about_lists() -> None:
    """What a call takes whatever is in it doesn't make the parts of a list small."""
    model = Model()  # says that each call takes 1 ms
    limits = BatchLimits(max_part_ms=5.0)
    batcher = await warmed(model, limits)
    for _ in range(20):
        await batcher.submit(call(1.0))
    await batcher.submit(call(*map(float, range(200))))
    await batcher.submit(call(*map(float, range(2000))))
    assert [len(rows) for rows in model.calls[-2:]] == [200, 2000]


@pytest.mark.parametrize(("replicas", "bound"), [(1, 2), (2, 6)])
async def test_calls_on_their_way_are_bounded_by_replicas(replicas: int, bound: int) -> None:
    """One replica has its own bound, several have theirs each."""
    model = Model()
    limits = BatchLimits(max_rows=2, calls_of_one_replica=2, calls_per_replica=3)
    batcher = await warmed(model, limits)
    calls = [call(float(i), max_replicas=replicas) for i in range(40)]
    await asyncio.gather(*(batcher.submit(each) for each in calls))
    assert model.most_at_once == bound


async def test_callers_who_ask_again_at_once_travel_together_again() -> None:
    """A call is not sent for the first who comes back when the others are about to."""
    model = Model()
    batcher = await warmed(model)

    async def caller() -> None:
        for _ in range(20):
            await batcher.submit(call(1.0))
            await turns(1)

    await asyncio.gather(*(caller() for _ in range(8)))
    assert sum(len(rows) == 8 for rows in model.calls) >= 19


@pytest.mark.parametrize("flavor", ["mlflow.sklearn", "mlflow.pyfunc.model", None])
@pytest.mark.parametrize("tag", ["auto", "on", "off"])
def test_the_tag_decides_and_else_the_flavor(flavor: str | None, tag: Any) -> None:
    """`on` and `off` are obeyed; `auto` shares calls of flavors that answer row by row."""
    model = served(version(1, flavor=flavor), options=ModelOptions(batching=tag))
    expected = tag == "on" or (tag == "auto" and flavor in ROW_WISE_FLAVORS)
    assert is_batched(model, model.versions[0]) is expected
