"""A request's frames as calls: made, on their way side by side, and what came back put together.

Must not import ray, mlflow or fastapi.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from gateway.catalog import Resolution
from gateway.contract import Frame, Outputs, Request
from gateway.deadline import Deadline
from gateway.errors import GatewayError
from gateway.ports import Call, CallResult


def call_of(
    resolution: Resolution,
    request: Request,
    frame: Frame,
    deadline: Deadline,
    patience_s: float,
    size_bytes: int,
) -> Call:
    """The call of one frame of a request, whose body has so many bytes."""
    return Call(
        model=resolution.model,
        version=resolution.version,
        frame=frame,
        params=request.params,
        deadline=deadline,
        patience_s=patience_s,
        size_bytes=size_bytes * frame.rows // request.rows,
    )


def placed(request: Request, results: Sequence[CallResult]) -> Outputs:
    """What came back for each frame, with the positions of its rows."""
    placed = zip(request.frames, results, strict=True)
    return [(where, result.output) for (where, _), result in placed]


def timings(
    results: Sequence[CallResult], started: float, parsed: float, called: float
) -> dict[str, float]:
    """What each step of a request took, by name, in milliseconds: until it was `parsed`, until the
    calls were answered, in each of their own steps in all, and since then. The moments are of
    `time.perf_counter`."""
    spent_ms = {"predict": (called - parsed) * 1e3}
    for result in results:
        for name, spent in result.timings_ms.items():
            spent_ms[name] = spent_ms.get(name, 0.0) + spent
    spent_ms["parse"] = (parsed - started) * 1e3
    spent_ms["render"] = (time.perf_counter() - called) * 1e3
    return spent_ms


async def together(calls: list[Coroutine[Any, Any, CallResult]]) -> list[CallResult]:
    """The results in order; where a call fails the others are cancelled and its error raised."""
    if len(calls) == 1:
        return [await calls[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except* GatewayError as errors:
        raise _first(errors) from None
    return [task.result() for task in tasks]


def _first(errors: BaseExceptionGroup[GatewayError]) -> GatewayError:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
