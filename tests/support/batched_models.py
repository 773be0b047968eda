"""Models behind a batcher that misbehave, and calls of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np

from gateway.batching.batcher import MicroBatcher
from gateway.batching.cost_model import BatchLimits
from gateway.catalog import ModelOptions
from gateway.contract import Frame
from gateway.deadline import Deadline
from gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    ModelFailed,
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


class Shy(Model):
    """Fails on every call of more than one row."""

    def answer(self, rows: Sequence[float], params: Mapping[str, Any]) -> CallResult:
        if len(rows) > 1:
            raise ModelFailed("The model's own code failed.")
        return super().answer(rows, params)


IMPATIENT_S = 1.0
"""The deadline of callers whom a moody backend is late for."""


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
