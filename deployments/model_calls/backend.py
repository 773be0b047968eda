"""Calls of model deployments by handle; the place where every Ray exception becomes one of ours.

A replica answers with a plain outcome (see `VersionHost.predict`), so what crosses here as an
exception is Ray's own: the replica died, the application is gone, the request was cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from ray import serve
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from deployments.application_names import MODEL_HOST, application_name, version_key
from deployments.model_calls.local_socket import LocalSockets
from deployments.model_calls.lost_calls import HANDLE_ERRORS, PREDICTIONS
from deployments.model_calls.outcomes import (
    ProcessLost,
    answered_by_replica,
    call_result,
    packed_call,
    starting_deadline_s,
    still_starting,
)
from gateway.catalog import ModelVersion
from gateway.errors import ModelUnavailable, Overloaded
from gateway.ports import Call, CallResult

_logger = logging.getLogger(__name__)

_RETRY_AFTER_S = 1.0

Activate = Callable[[str, int], Awaitable[None]]
"""Has the application of a model's version running; raises ModelUnavailable."""


# What crosses is plain, so that it needs no cloudpickle, which costs several times as much.
_SERIALIZATION = "pickle"


class VersionHandle:
    """Calls of one version, sent to a replica that has it where there is one."""

    def __init__(self, handle: DeploymentHandle[Any], version: ModelVersion) -> None:
        self._version = (version.number, version.fingerprint, version.flavor)
        # Made once: `options` copies the handle, which costs a tenth of a call.
        self._handle = handle.options(
            method_name="call",
            multiplexed_model_id=version_key(version.number, version.fingerprint),
            request_serialization=_SERIALIZATION,
            response_serialization=_SERIALIZATION,
        )

    async def call(
        self, message: bytes, *, load_timeout_s: float, timeout_s: float
    ) -> tuple[str, Any]:
        """What came of one packed call (see `Supervisor.call`); raises `HANDLE_ERRORS`."""
        outcome: tuple[str, Any] = await self._handle.remote(
            *self._version, message, load_timeout_s, timeout_s
        )
        return outcome


class ApplicationHandle:
    """Calls of the versions that one application serves: by the sockets of its replica's processes
    where there are some, else by handle."""

    def __init__(self, name: str) -> None:
        self._handle = serve.get_deployment_handle(MODEL_HOST, name)
        self._sockets = LocalSockets(self._handle)
        self._versions: dict[str, VersionHandle] = {}

    async def predict(self, call: Call, *, start_by: float) -> CallResult:
        """One call; waits for a load until `start_by` (of the monotonic clock).

        Raises `HANDLE_ERRORS`, ProcessLost and the errors of `PredictionBackend.predict`.
        """
        fingerprint = call.version.fingerprint
        message = packed_call(
            call.frame,
            call.params,
            give_up_at=time.monotonic() + call.timeout_s,
            patience_s=call.patience_s,
            traceparent=call.traceparent,
        )
        with suppress(ConnectionError):  # the replica knows what became of the process
            answer = await self._sockets.call(fingerprint, message)
            if answer is not None:
                return call_result(answer)
        now = time.monotonic()
        outcome = await self.version(call.version).call(
            message, load_timeout_s=max(0.0, start_by - now), timeout_s=call.timeout_s
        )
        answer, address, load_s = answered_by_replica(outcome)
        if call.model.options.max_replicas == 1:
            self._sockets.learn(fingerprint, address)
        return call_result(answer, load_s=load_s)

    def version(self, version: ModelVersion) -> VersionHandle:
        """The handle of one version."""
        found = self._versions.get(version.fingerprint)
        if found is None:
            found = self._versions[version.fingerprint] = VersionHandle(self._handle, version)
        return found


class RayBackend:
    """A `PredictionBackend` over Serve handles: finds the application, calls it, and again if that
    call was lost."""

    def __init__(self, activate: Activate) -> None:
        self._activate = activate
        self._activating: dict[str, asyncio.Future[None]] = {}
        self._handles: dict[str, ApplicationHandle] = {}

    async def predict(self, call: Call) -> CallResult:
        """See `PredictionBackend.predict`."""
        application = application_name(call.model, call.version)
        give_up_at = time.monotonic() + starting_deadline_s(call.timeout_s)
        try:
            return await self._call(application, call, give_up_at)
        except (*HANDLE_ERRORS, ProcessLost) as error:
            return await self._call_again(application, call, give_up_at, error)

    async def _call_again(
        self, application: str, call: Call, give_up_at: float, error: Exception
    ) -> CallResult:
        try:
            async with asyncio.timeout(give_up_at - time.monotonic()):
                return await PREDICTIONS.again(
                    lambda: self._call(application, call, give_up_at), error, until=give_up_at
                )
        except TimeoutError:  # there was no replica again, or not for long enough
            raise still_starting() from error
        except BackPressureError as busy:
            raise Overloaded("The model is busy.", retry_after_s=_RETRY_AFTER_S) from busy
        except (*HANDLE_ERRORS, ProcessLost) as lost:
            _logger.exception("application %s does not answer", application)
            raise ModelUnavailable(
                "The model's processes do not answer.", retry_after_s=_RETRY_AFTER_S
            ) from lost

    async def _call(self, application: str, call: Call, give_up_at: float) -> CallResult:
        handle = self._handles.get(application) or await self._activated(
            application, call, give_up_at
        )
        try:
            return await handle.predict(call, start_by=give_up_at)
        except DeploymentUnavailableError:
            self._handles.pop(application, None)  # the application is gone: it must be made again
            raise

    async def _activated(
        self, application: str, call: Call, give_up_at: float
    ) -> ApplicationHandle:
        try:
            async with asyncio.timeout(give_up_at - time.monotonic()):
                await self._activation(application, call)
        except TimeoutError:
            raise still_starting() from None
        handle = self._handles.get(application)
        if handle is None:
            handle = self._handles[application] = ApplicationHandle(application)
        return handle

    async def _activation(self, application: str, call: Call) -> None:
        """One activation however many wait for it; who leaves stops it for nobody."""
        task = self._activating.get(application)
        if task is None:
            activating = self._activate(call.model.name, call.version.number)
            task = asyncio.ensure_future(activating)
            self._activating[application] = task
            task.add_done_callback(lambda task: self._end_activation(application, task))
        await asyncio.shield(task)

    def _end_activation(self, application: str, task: asyncio.Future[None]) -> None:
        self._activating.pop(application, None)
        if not task.cancelled():
            task.exception()  # mark as seen: all who waited may have left
