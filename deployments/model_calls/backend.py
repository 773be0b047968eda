"""Calls of model deployments: finds the application, calls it, and again if that call was lost.

A replica answers with a plain outcome (see `Supervisor.call`); what is lost on its way comes as
`CallLost`. Must not import ray.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any, TypeAlias, TypeVar

from deployments.application_names import application_name, version_key
from deployments.model_calls.local_socket import LocalSockets
from deployments.model_calls.outcomes import (
    answered_by_replica,
    call_result,
    packed,
    still_starting,
    streamed,
)
from deployments.model_calls.retries import PREDICTIONS, Retries
from deployments.model_process.framing import Message
from deployments.serve.ports import CallLost, Connect, Loss, ReplicaHandle
from gateway.catalog import EnvironmentMode, ModelVersion
from gateway.deadline import Deadline
from gateway.errors import GatewayError, ModelUnavailable, Overloaded
from gateway.ports import Call, CallResult
from gateway.single_flight import SingleFlight

_logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_Begun: TypeAlias = tuple[AsyncGenerator[CallResult], CallResult | None]

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

    async def stream(
        self, message: bytes, *, load_timeout_s: float, timeout_s: float
    ) -> AsyncGenerator[tuple[str, Any]]:
        """What came of one packed call that streams (see `Supervisor.stream`); raises CallLost."""
        outcomes = self._handle.stream(
            "stream",
            *self._version,
            message,
            load_timeout_s,
            timeout_s,
            multiplexed_model_id=self.key,
        )
        async with aclosing(outcomes):
            async for outcome in outcomes:
                yield outcome


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
        message = packed(call)
        version = self.version(call.version, call.model.environment_of(call.version))
        with suppress(ConnectionError):  # the replica knows what became of the process
            answer = await self._sockets.call(version.key, message)
            if answer is not None:
                return call_result(answer)
        outcome = await version.call(
            message, load_timeout_s=start_by.left_s(), timeout_s=call.deadline.left_s()
        )
        answer, load_s = self._learned(call, version, outcome)
        return call_result(answer, load_s=load_s)

    async def stream(self, call: Call, *, start_by: Deadline) -> AsyncGenerator[CallResult]:
        """What a call that streams is answered with, piece by piece; otherwise as `call`."""
        async with aclosing(self._outcomes(call, start_by)) as outcomes:
            async for outcome in outcomes:
                piece = streamed(outcome)
                if piece is None:
                    return
                yield piece

    async def _outcomes(self, call: Call, start_by: Deadline) -> AsyncGenerator[Message]:
        message = packed(call, streams=True)
        version = self.version(call.version, call.model.environment_of(call.version))
        direct, has_begun = self._sockets.stream(version.key, message), False
        if direct is not None:
            try:
                async with aclosing(direct):
                    async for outcome in direct:
                        has_begun = True
                        yield outcome
            except ConnectionError as error:
                if has_begun:
                    raise CallLost(Loss.INSIDE) from error
        by_handle = version.stream(
            message, load_timeout_s=start_by.left_s(), timeout_s=call.deadline.left_s()
        )
        async with aclosing(by_handle):
            async for answered in by_handle:
                yield self._learned(call, version, answered)[0]

    def _learned(
        self, call: Call, version: VersionHandle, outcome: tuple[str, Any]
    ) -> tuple[Message, float]:
        """What a replica has of a process, whose address is kept; raises what the outcome means."""
        answer, address, load_s = answered_by_replica(outcome)
        if call.model.options.max_replicas == 1:
            self._sockets.learn(version.key, address)
        return answer, load_s

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

    async def stream(self, call: Call) -> AsyncGenerator[CallResult]:
        """See `StreamingBackend.stream`."""
        application = application_name(call.model.name)
        start_by = call.deadline.share(_STARTING_SHARE)
        pieces, first = await self._begun(application, call, start_by)
        async with aclosing(pieces):
            if first is None:
                return
            yield first
            try:
                async for piece in pieces:
                    yield piece
            except CallLost as lost:  # what has come can't be taken back: nothing is sent again
                raise _given_up(application, lost) from lost

    async def _begun(self, application: str, call: Call, start_by: Deadline) -> _Begun:
        """A stream and its first piece. Until that is there, what is lost is sent again."""
        try:
            return await self._begin(application, call, start_by)
        except CallLost as lost:
            return await self._again(
                application, lambda: self._begin(application, call, start_by), start_by, lost
            )

    async def _begin(self, application: str, call: Call, start_by: Deadline) -> _Begun:
        async def first_of(handle: ApplicationHandle) -> _Begun:
            pieces = handle.stream(call, start_by=start_by)
            try:
                return pieces, await anext(pieces, None)
            except BaseException:
                await pieces.aclose()
                raise

        return await self._at(application, call, start_by, first_of)

    async def _call_again(
        self, application: str, call: Call, start_by: Deadline, lost: CallLost
    ) -> CallResult:
        return await self._again(
            application, lambda: self._call(application, call, start_by), start_by, lost
        )

    async def _again(
        self,
        application: str,
        send: Callable[[], Awaitable[_T]],
        start_by: Deadline,
        lost: CallLost,
    ) -> _T:
        try:
            async with asyncio.timeout(start_by.left_s()):
                return await self._retries.again(send, lost, until=start_by.at_s)
        except TimeoutError:  # there was no replica again, or not for long enough
            raise still_starting() from lost
        except CallLost as again:
            raise _given_up(application, again) from again

    async def _call(self, application: str, call: Call, start_by: Deadline) -> CallResult:
        return await self._at(
            application, call, start_by, lambda handle: handle.call(call, start_by=start_by)
        )

    async def _at(
        self,
        application: str,
        call: Call,
        start_by: Deadline,
        ask: Callable[[ApplicationHandle], Awaitable[_T]],
    ) -> _T:
        """What comes of asking the application."""
        handle = self._handles.get(application) or await self._activated(
            application, call, start_by
        )
        try:
            return await ask(handle)
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
