"""Calls of model deployments: finds the application, calls it, and again if that call was lost.

A replica answers with a plain outcome (see `Supervisor.call`); what is lost on its way comes as
`CallLost`. Must not import ray.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from deployments.application_names import application_name, version_key
from deployments.model_calls.local_socket import LocalSockets
from deployments.model_calls.outcomes import (
    answered_by_replica,
    call_result,
    packed_call,
    still_starting,
)
from deployments.model_calls.retries import PREDICTIONS, Retries
from deployments.serve.ports import CallLost, Connect, Loss, ReplicaHandle
from gateway.catalog import EnvironmentMode, ModelVersion
from gateway.deadline import Deadline
from gateway.errors import GatewayError, ModelUnavailable, Overloaded
from gateway.ports import Call, CallResult
from gateway.single_flight import SingleFlight

_logger = logging.getLogger(__name__)

_RETRY_AFTER_S = 1.0
# Of a request's deadline, for starting what answers it: the rest is for saying so, since a caller
# who came too early should hear that and not that the model is slow.
_STARTING_SHARE = 0.9

Activate = Callable[[str, int], Awaitable[None]]
"""Has the application of a model's version running; raises ModelUnavailable."""


class VersionHandle:
    """Calls of one version, sent to a replica that has it where there is one."""

    def __init__(
        self, handle: ReplicaHandle, version: ModelVersion, environment: EnvironmentMode | None
    ) -> None:
        self._handle = handle
        self._version = (version.number, version.fingerprint, version.flavor, environment)
        self.key = version_key(version.number, version.fingerprint, environment)

    async def call(
        self, message: bytes, *, load_timeout_s: float, timeout_s: float
    ) -> tuple[str, Any]:
        """What came of one packed call (see `Supervisor.call`); raises CallLost."""
        outcome: tuple[str, Any] = await self._handle.call(
            "call",
            *self._version,
            message,
            load_timeout_s,
            timeout_s,
            multiplexed_model_id=self.key,
        )
        return outcome


class ApplicationHandle:
    """Calls of the versions that one application serves: by the sockets of its replica's processes
    where there are some, else by handle."""

    def __init__(self, handle: ReplicaHandle) -> None:
        self._handle = handle
        self._sockets = LocalSockets(handle)
        self._versions: dict[tuple[str, EnvironmentMode | None], VersionHandle] = {}

    async def call(self, call: Call, *, start_by: Deadline) -> CallResult:
        """One call; waits for a load until `start_by`.

        Raises CallLost and the errors of `PredictionBackend.call`.
        """
        message = packed_call(
            call.frame,
            call.params,
            give_up_at=call.deadline.at_s,
            patience_s=call.patience_s,
            traceparent=call.traceparent,
        )
        version = self.version(call.version, call.model.environment_of(call.version))
        with suppress(ConnectionError):  # the replica knows what became of the process
            answer = await self._sockets.call(version.key, message)
            if answer is not None:
                return call_result(answer)
        outcome = await version.call(
            message, load_timeout_s=start_by.left_s(), timeout_s=call.deadline.left_s()
        )
        answer, address, load_s = answered_by_replica(outcome)
        if call.model.options.max_replicas == 1:
            self._sockets.learn(version.key, address)
        return call_result(answer, load_s=load_s)

    def version(self, version: ModelVersion, environment: EnvironmentMode | None) -> VersionHandle:
        """The handle of one version, that runs with the packages that a tag says."""
        which = (version.fingerprint, environment)
        found = self._versions.get(which)
        if found is None:
            found = self._versions[which] = VersionHandle(self._handle, version, environment)
        return found


class RayBackend:
    """A `PredictionBackend` over the applications of a Serve."""

    def __init__(
        self, activate: Activate, connect: Connect, *, retries: Retries = PREDICTIONS
    ) -> None:
        self._activate = activate
        self._connect = connect
        self._retries = retries
        self._activations: SingleFlight[str, None] = SingleFlight()
        self._handles: dict[str, ApplicationHandle] = {}

    async def call(self, call: Call) -> CallResult:
        """See `PredictionBackend.call`."""
        application = application_name(call.model.name)
        start_by = call.deadline.share(_STARTING_SHARE)
        try:
            return await self._call(application, call, start_by)
        except CallLost as lost:
            return await self._call_again(application, call, start_by, lost)

    async def _call_again(
        self, application: str, call: Call, start_by: Deadline, lost: CallLost
    ) -> CallResult:
        try:
            async with asyncio.timeout(start_by.left_s()):
                return await self._retries.again(
                    lambda: self._call(application, call, start_by), lost, until=start_by.at_s
                )
        except TimeoutError:  # there was no replica again, or not for long enough
            raise still_starting() from lost
        except CallLost as again:
            raise _given_up(application, again) from again

    async def _call(self, application: str, call: Call, start_by: Deadline) -> CallResult:
        handle = self._handles.get(application) or await self._activated(
            application, call, start_by
        )
        try:
            return await handle.call(call, start_by=start_by)
        except CallLost as lost:
            if lost.loss is Loss.NO_APPLICATION and self._handles.get(application) is handle:
                del self._handles[application]  # it must be made again
            raise

    async def _activated(
        self, application: str, call: Call, start_by: Deadline
    ) -> ApplicationHandle:
        """The handle of the application, once it runs: one activation however many wait for it."""

        async def activate() -> None:
            await self._activate(call.model.name, call.version.number)

        try:
            async with asyncio.timeout(start_by.left_s()):
                await self._activations.run(application, activate)
        except TimeoutError:
            raise still_starting() from None
        handle = self._handles.get(application)
        if handle is None:
            handle = self._handles[application] = ApplicationHandle(self._connect(application))
        return handle


def _given_up(application: str, lost: CallLost) -> GatewayError:
    """What callers hear of a call that isn't sent again."""
    if lost.loss is Loss.BUSY:
        return Overloaded("The model is busy.", retry_after_s=_RETRY_AFTER_S)
    _logger.error("application %s does not answer: %s", application, lost, exc_info=lost)
    return ModelUnavailable("The model's processes do not answer.", retry_after_s=_RETRY_AFTER_S)
