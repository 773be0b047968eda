"""Calls by handle that Ray loses, and sending them again.

Owns which exceptions mean that a call was lost, how often it is sent again and with what pauses.
What callers are told in the end is decided where the call is made.

A replica that is killed takes the calls inside it along; Ray sends none of them again, because it
can't know whether that would do harm. Predictions, activations and looks at the registry may be
made twice. Where no replica is left the handle itself waits for the next one
(ray/serve/_private/router.py, `route_and_send_request`), so what comes here are the calls that were
inside.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import TypeVar

import grpc
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException

from deployments.backoff import Backoff

_logger = logging.getLogger(__name__)

_T = TypeVar("_T")

HANDLE_ERRORS = (RayError, RayServeException, grpc.aio.AioRpcError)
"""Everything that Ray raises of its own where a call by handle doesn't come back.

Of gRPC's errors Ray turns only UNAVAILABLE into one of its own, the rest come as they are
(ray/serve/_private/replica_result.py).
"""

# How gRPC says that the other end went away in the middle of a call.
_BROKEN_OFF = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
    }
)

_PAUSES = Backoff(least_s=0.05, most_s=1.0)

# A call that kills whatever it reaches must not go on doing so until its deadline.
_MOST_LOSSES = 3


def is_lost(error: BaseException) -> bool:
    """Whether the replica went away with the call, so that another may answer it."""
    if isinstance(error, grpc.aio.AioRpcError):
        return error.code() in _BROKEN_OFF
    if isinstance(error, RayActorError):
        return True  # also where a task reports it of an actor that it had asked
    return isinstance(error, RayError) and not isinstance(error, RayTaskError)


async def send_again(
    send: Callable[[], Awaitable[_T]],
    error: BaseException,
    *,
    until: float,
    most_losses: float = _MOST_LOSSES,
) -> _T:
    """Send once more what was lost with `error`, and again while that is lost too.

    Goes on `until` (of the monotonic clock), or until so many replicas went away with the call;
    a deployment that isn't there counts as none. Raises the last of `HANDLE_ERRORS`.
    """
    random = Random()  # noqa: S311 - no secret
    losses = failures = 0
    while True:
        failures += 1
        losses += is_lost(error)
        pause_s = _PAUSES.pause_s(failures, random)
        if (
            not _worth_another(error)
            or losses >= most_losses
            or time.monotonic() + pause_s >= until
        ):
            raise error
        _logger.warning("a call was lost (%s); it is sent again", type(error).__name__)
        await asyncio.sleep(pause_s)
        try:
            return await send()
        except HANDLE_ERRORS as another:
            error = another


def _worth_another(error: BaseException) -> bool:
    if isinstance(error, BackPressureError):
        return False
    return is_lost(error) or isinstance(error, DeploymentUnavailableError)
