"""Calls that travel together: who gets what, under failures, cancellations and bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, cycle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.batching.batcher import MicroBatcher
from gateway.batching.compatibility import ROW_WISE_FLAVORS, is_batched
from gateway.batching.cost_model import BatchLimits
from gateway.catalog import ModelOptions
from gateway.contract import Frame
from gateway.deadline import Deadline
from gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    InvalidInput,
    InvalidModelOutput,
    ModelFailed,
    ModelUnavailable,
    Violation,
)
from gateway.ports import Call, CallResult
from tests.support.catalogs import served, version

BAD = -1.0
"""A row that makes the model fail, whoever travels with it."""

ONE_SLOT = BatchLimits(max_rows=8, max_part_ms=1e9)


class Model:
    """A backend that doubles numbers, a few turns of the loop later, and remembers its calls."""

    def __init__(self, turns: Callable[[], int] = lambda: 3) -> None:
        self.calls: list[list[float]] = []
        self.at_once = 0
        self.most_at_once = 0
        self.cancelled = 0
        self._turns = turns

    async def call(self, call: Call) -> CallResult:
        rows = list(call.frame.columns[0])
        self.calls.append(rows)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            for _ in range(self._turns()):
                await asyncio.sleep(0)
            return self.answer(rows, call.params)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.at_once -= 1

    def answer(self, rows: Sequence[float], params: Mapping[str, Any]) -> CallResult:
        if BAD in rows:
            raise ModelFailed("The model's own code failed.")
        values = np.array([2 * row + params.get("offset", 0) for row in rows])
        return CallResult(output=("values", values), timings_ms={"model": 1.0})


def call(
    *rows: float,
    params: Mapping[str, Any] | None = None,
    max_replicas: int = 1,
    timeout_s: float = 60.0,
    **fields: Any,
) -> Call:
    """A call of a batched model with one column."""
    options = ModelOptions(batching="on", max_replicas=max_replicas)
    frame = Frame(layout="table", names=("x",), columns=(np.array(rows),), rows=len(rows), key="k")
    made = version(1)
    return Call(
        model=served(made, options=options),
        version=made,
        frame=frame,
        params=params or {},
        deadline=Deadline.after(timeout_s),
        **fields,
    )


def answered(result: CallResult) -> list[float]:
    """The values of a result, in the order of its rows."""
    return [float(value) for value in result.output[1]]


async def warmed(model: Model, limits: BatchLimits = ONE_SLOT) -> MicroBatcher:
    """A batcher over a model that has answered once: from then on calls are shared."""
    batcher = MicroBatcher(model, limits)
    await batcher.submit(call(0.0))
    model.calls.clear()
    model.most_at_once = 0
    return batcher


async def outcome(answering: Awaitable[CallResult]) -> list[float] | type[BaseException]:
    """The answer, or the class of the error instead."""
    try:
        return answered(await answering)
    except (GatewayError, asyncio.CancelledError) as error:
        return type(error)


async def turns(count: int) -> None:
    """Let the loop run what is ready, so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


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


class Shy(Model):
    """Fails on every call of more than one row."""

    def answer(self, rows: Sequence[float], params: Mapping[str, Any]) -> CallResult:
        if len(rows) > 1:
            raise ModelFailed("The model's own code failed.")
        return super().answer(rows, params)


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


@pytest.mark.parametrize("flavor", ["mlflow.sklearn", "mlflow.pyfunc.model", None])
@pytest.mark.parametrize("tag", ["auto", "on", "off"])
def test_the_tag_decides_and_else_the_flavor(flavor: str | None, tag: Any) -> None:
    """`on` and `off` are obeyed; `auto` shares calls of flavors that answer row by row."""
    model = served(version(1, flavor=flavor), options=ModelOptions(batching=tag))
    expected = tag == "on" or (tag == "auto" and flavor in ROW_WISE_FLAVORS)
    assert is_batched(model, model.versions[0]) is expected


@dataclass(frozen=True)
class Caller:
    """What one caller sends, after how many turns, after how many more it leaves, and how patient
    it is."""

    rows: tuple[float, ...]
    offset: int
    after: int
    stays: int | None
    timeout_s: float


IMPATIENT_S = 1.0

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


class Moody:
    """A backend that raises by chance what isn't about rows, and is late for the impatient: with
    them alone, since a call has the patience of its most patient caller."""

    def __init__(self, backend: Model, moods: Iterator[type[GatewayError] | None]) -> None:
        self._backend = backend
        self._moods = moods
        self.raised: set[type[GatewayError]] = set()

    def calm(self) -> None:
        self._moods = cycle([None])

    async def call(self, call: Call) -> CallResult:
        result = await self._backend.call(call)
        mood = next(self._moods)
        if mood is DeadlineExceeded and call.deadline.left_s() > IMPATIENT_S:
            mood = None
        if mood is not None:
            self.raised.add(mood)
            raise mood("By chance.")
        return result


@settings(max_examples=400, deadline=None)
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
