"""Which of Ray's exceptions mean that a call by handle was lost, and that it may be sent again.

A replica that is killed takes the calls inside it along; Ray sends none of them again, because it
can't know whether that would do harm. Predictions and activations may be made twice. Where no
replica is left the handle itself waits for the next one (ray/serve/_private/router.py,
`route_and_send_request`), so what comes here are mostly the calls that were inside.
"""

from __future__ import annotations

from math import inf

import grpc
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException

from deployments.backoff import Backoff
from deployments.model_calls.outcomes import ProcessLost
from deployments.model_calls.resending import Loss, Resending

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
# A version that ends each process that it reaches is suspended after three of them (see
# `deployments.model_replica.crash_record`). This is for those of its neighbours' calls that were
# lost with it, each time perhaps twice: once inside, and once because Ray didn't know yet.
_MOST_INSIDE = 8


def loss_of(error: Exception) -> Loss | None:
    """How a call was lost; None where another try would end likewise."""
    if isinstance(error, ProcessLost):
        return Loss.INSIDE
    if isinstance(error, DeploymentUnavailableError):
        return Loss.UNSENT
    if isinstance(error, grpc.aio.AioRpcError):
        return Loss.INSIDE if error.code() in _BROKEN_OFF else None
    if isinstance(error, RayActorError):
        return Loss.INSIDE  # also where a task reports it of an actor that it had asked
    if isinstance(error, RayTaskError | BackPressureError):
        return None
    return Loss.INSIDE if isinstance(error, RayError) else None


PREDICTIONS = Resending(
    errors=(*HANDLE_ERRORS, ProcessLost),
    loss_of=loss_of,
    pauses=_PAUSES,
    most_inside=_MOST_INSIDE,
)
"""Predictions are sent again, but not for ever."""

ACTIVATIONS = Resending(errors=HANDLE_ERRORS, loss_of=loss_of, pauses=_PAUSES, most_inside=inf)
"""To ask for an application is harmless however often, and who waits for it has a deadline."""
