"""Calls by handle: the place where Ray's exceptions, and gRPC's, become ours.

Callers who leave are told by asyncio alone. Ray also cancels what was called in the context of a
request (`_requests_pending_assignment` in ray/serve/context.py) when that request is cancelled,
whoever else waits for the answer: so all calls are made in no request's context.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextvars import Context
from types import TracebackType
from typing import Any

import grpc
from ray import serve
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.serve.ports import CallLost, Loss

# What crosses needs no cloudpickle, which costs several times as much.
_SERIALIZATION = "pickle"

# How gRPC says that the other end went away in the middle of a call. Of its errors Ray turns only
# UNAVAILABLE into one of its own, the rest come as they are (ray/serve/_private/replica_result.py).
_BROKEN_OFF = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
    }
)


_END = object()


class _AsOurs:
    """Whatever Ray raises, or a method that is called, becomes a CallLost; nothing of ours is in
    here. A call may be cancelled over there, too, by a replica that ends: that isn't the caller's
    own cancellation, which passes."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, asyncio.CancelledError):
            if not _is_cancelled():
                raise CallLost(Loss.INSIDE) from error
        elif isinstance(error, Exception):
            raise CallLost(loss_of(error)) from error


_AS_OURS = _AsOurs()


class RayHandle:
    """A `ReplicaHandle` over one of Ray Serve's."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle
        self._methods: dict[tuple[str, str | None], DeploymentHandle[Any]] = {}

    async def call(
        self, method: str, *arguments: Any, multiplexed_model_id: str | None = None
    ) -> Any:
        """See `ReplicaHandle.call`."""
        asked = self._methods.get((method, multiplexed_model_id))
        with _AS_OURS:
            if asked is None:
                asked = Context().run(self._options, method, multiplexed_model_id)
            return await Context().run(asked.remote, *arguments)

    async def stream(
        self, method: str, *arguments: Any, multiplexed_model_id: str | None = None
    ) -> AsyncGenerator[Any]:
        """See `ReplicaHandle.stream`."""
        asked = self._methods.get((method, multiplexed_model_id))
        with _AS_OURS:
            if asked is None:
                asked = Context().run(self._options, method, multiplexed_model_id, stream=True)
            response: Any = Context().run(asked.remote, *arguments)
        try:
            while True:
                with _AS_OURS:
                    item = await anext(response, _END)
                if item is _END:
                    return
                yield item
        finally:
            response.cancel()  # a generator that has ended bears it

    async def broadcast(self, method: str, *arguments: Any) -> list[Any]:
        """See `ReplicaHandle.broadcast`."""
        with _AS_OURS:
            response = Context().run(self._handle.broadcast, method, *arguments)
            answers = await response.results_async(return_exceptions=True)
        return [_lost(each) if isinstance(each, BaseException) else each for each in answers]

    def _options(
        self, method: str, multiplexed_model_id: str | None, *, stream: bool = False
    ) -> DeploymentHandle[Any]:
        """Made once: it copies the handle, which costs a tenth of a call."""
        key: dict[str, Any] = {}
        if multiplexed_model_id is not None:
            key["multiplexed_model_id"] = multiplexed_model_id
        made: DeploymentHandle[Any] = self._handle.options(
            method_name=method,
            request_serialization=_SERIALIZATION,
            response_serialization=_SERIALIZATION,
            stream=stream,
            **key,
        )
        self._methods[method, multiplexed_model_id] = made
        return made


def replica_handle(deployment: str, application: str) -> RayHandle:
    """The handle of a deployment by its name and its application's; raises CallLost where there is
    none of these names."""
    try:
        return RayHandle(Context().run(serve.get_deployment_handle, deployment, application))
    except (KeyError, RayServeException, RayError) as error:
        raise CallLost(Loss.NO_APPLICATION) from error


def own_replicas() -> RayHandle:
    """The handle of the deployment that this process is a replica of."""
    here = serve.get_replica_context()
    return replica_handle(here.deployment, here.app_name)


def loss_of(error: BaseException) -> Loss:
    """What Ray's exception says about a call."""
    if isinstance(error, DeploymentUnavailableError):
        return Loss.NO_APPLICATION
    if isinstance(error, BackPressureError):
        return Loss.BUSY
    if isinstance(error, grpc.aio.AioRpcError):
        return Loss.INSIDE if error.code() in _BROKEN_OFF else Loss.FAILED
    if isinstance(error, RayActorError | asyncio.CancelledError):
        return Loss.INSIDE  # also where a task reports it of an actor that it had asked
    is_inside = isinstance(error, RayError) and not isinstance(error, RayTaskError)
    return Loss.INSIDE if is_inside else Loss.FAILED


def _lost(error: BaseException) -> CallLost:
    lost = CallLost(loss_of(error))
    lost.__cause__ = error
    return lost


def _is_cancelled() -> bool:
    """Whether who waits is cancelled, and not only what is waited for."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
