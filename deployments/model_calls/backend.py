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

from deployments.application_names import MODEL_HOST, application_name
from deployments.model_calls.local_socket import SocketLine
from deployments.model_calls.lost_calls import HANDLE_ERRORS, PREDICTIONS
from deployments.model_calls.outcomes import (
    Outcome,
    call_result,
    plain_call,
    still_starting,
)
from deployments.model_replica.call import ModelCall
from deployments.model_replica.loader import version_key
from gateway.catalog import ModelVersion
from gateway.deadline import Deadline
from gateway.errors import ModelUnavailable, Overloaded
from gateway.ports import Call, CallResult

_logger = logging.getLogger(__name__)

_RETRY_AFTER_S = 1.0
# How much of a request's time may be spent on starting: the rest is for saying so, since a caller
# who came too early should hear that and not that the model is slow.
_STARTING_SHARE = 0.9

Activate = Callable[[str, int], Awaitable[None]]
"""Has the application of a model's version running; raises ModelUnavailable."""


# What crosses is plain, so that it needs no cloudpickle, which costs several times as much.
_SERIALIZATION = "pickle"


class VersionHandle:
    """Calls of one version, sent to a replica that has it where there is one."""

    def __init__(self, handle: DeploymentHandle[Any], version: ModelVersion) -> None:
        key = version_key(version.number, version.fingerprint)
        # Made once: `options` copies the handle, which costs a tenth of a call.
        self._handle = handle.options(
            method_name="predict",
            multiplexed_model_id=key,
            request_serialization=_SERIALIZATION,
            response_serialization=_SERIALIZATION,
        )

    async def predict(self, call: ModelCall, *, load_timeout_s: float) -> Outcome:
        """What came of one call (see `VersionHost.predict`); raises `HANDLE_ERRORS`."""
        timeout_s = max(0.0, call.give_up_at - time.monotonic())
        outcome: Outcome = await self._handle.remote(tuple(call), load_timeout_s, timeout_s)
        return outcome


class ApplicationHandle:
    """Calls of the versions that one application serves: on the line to its replica's socket where
    there is one, else by handle."""

    def __init__(self, name: str) -> None:
        self._handle = serve.get_deployment_handle(MODEL_HOST, name)
        self._line = SocketLine(self._handle)
        self._versions: dict[str, VersionHandle] = {}

    async def call(self, call: Call, *, start_by: Deadline) -> Outcome:
        """One call; waits for a load until `start_by`.

        Raises `HANDLE_ERRORS`.
        """
        model_call = plain_call(
            call.version,
            call.frame,
            call.params,
            give_up_at=call.deadline.at_s,
            patience_s=call.patience_s,
            traceparent=call.traceparent,
        )
        with suppress(ConnectionError):  # Ray knows what became of the replica
            outcome = await self._line.predict(model_call)
            if outcome is not None:
                return outcome
        outcome = await self.version(call.version).predict(
            model_call, load_timeout_s=start_by.left_s()
        )
        if call.model.options.max_replicas == 1:
            self._line.keep()
        return outcome

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

    async def call(self, call: Call) -> CallResult:
        """See `PredictionBackend.call`."""
        application = application_name(call.model, call.version)
        start_by = call.deadline.share(_STARTING_SHARE)
        try:
            outcome = await self._call(application, call, start_by)
        except HANDLE_ERRORS as error:
            outcome = await self._call_again(application, call, start_by, error)
        return call_result(outcome)

    async def _call_again(
        self, application: str, call: Call, start_by: Deadline, error: Exception
    ) -> Outcome:
        try:
            async with asyncio.timeout(start_by.left_s()):
                return await PREDICTIONS.again(
                    lambda: self._call(application, call, start_by), error, until=start_by.at_s
                )
        except TimeoutError:  # there was no replica again, or not for long enough
            raise still_starting() from error
        except BackPressureError as busy:
            raise Overloaded("The model is busy.", retry_after_s=_RETRY_AFTER_S) from busy
        except HANDLE_ERRORS as lost:
            _logger.exception("application %s does not answer", application)
            raise ModelUnavailable(
                "The model's processes do not answer.", retry_after_s=_RETRY_AFTER_S
            ) from lost

    async def _call(self, application: str, call: Call, start_by: Deadline) -> Outcome:
        handle = self._handles.get(application) or await self._activated(
            application, call, start_by
        )
        try:
            return await handle.call(call, start_by=start_by)
        except DeploymentUnavailableError:
            self._handles.pop(application, None)  # the application is gone: it must be made again
            raise

    async def _activated(
        self, application: str, call: Call, start_by: Deadline
    ) -> ApplicationHandle:
        try:
            async with asyncio.timeout(start_by.left_s()):
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
