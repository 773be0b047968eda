"""Calls of model deployments: finds the application, calls it, and again if that call was lost.

A replica answers with a plain outcome (see `Supervisor.call`); what is lost on its way comes as
`CallLost`. Must not import ray.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, TypeAlias, TypeVar

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
from deployments.model_replica.version_process import VersionId
from deployments.placement import OWN, Placement
from deployments.serve.ports import CallLost, Connect, Loss, ReplicaHandle
from gateway.catalog import EnvironmentMode, ModelVersion, ServedModel
from gateway.deadline import Deadline
from gateway.errors import GatewayError, ModelFailed, ModelUnavailable, Overloaded
from gateway.ports import Call, CallResult
from gateway.single_flight import SingleFlight

_logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_Begun: TypeAlias = tuple[AsyncGenerator[CallResult], CallResult | None]

_RETRY_AFTER_S = 1.0
# Of a request's deadline, for starting what answers it: the rest is for saying so, since a caller
# who came too early should hear that and not that the model is slow.
_STARTING_SHARE = 0.9
# For a model to be loaded by another application, and until that is tried again.
_MOVE_S = 600.0
_MOVE_AGAIN_S = 1.0

Activate = Callable[[str, int], Awaitable[str]]
"""Has the application of a model's version running; its name. Raises ModelUnavailable."""


class VersionHandle:
    """Calls of one version, sent to a replica that has it where there is one."""

    def __init__(self, handle: ReplicaHandle, version: VersionId) -> None:
        self._handle = handle
        self.version = version
        self.key = version.key
        # Ray keeps no shadows: to it the replica has none of that id, and it would wait for one.
        self._kept_as = None if version.aside else version.key

    async def load(self) -> tuple[str, Any]:
        """Have it in a replica's memory (see `Supervisor.load`); raises CallLost."""
        outcome: tuple[str, Any] = await self._handle.call(
            "load", self.version, multiplexed_model_id=self.key
        )
        return outcome

    async def call(
        self, message: bytes, *, load_timeout_s: float, timeout_s: float
    ) -> tuple[str, Any]:
        """What came of one packed call (see `Supervisor.call`); raises CallLost."""
        outcome: tuple[str, Any] = await self._handle.call(
            "call",
            self.version,
            message,
            load_timeout_s,
            timeout_s,
            multiplexed_model_id=self._kept_as,
        )
        return outcome

    async def stream(
        self, message: bytes, *, load_timeout_s: float, timeout_s: float
    ) -> AsyncGenerator[tuple[str, Any]]:
        """What came of one packed call that streams (see `Supervisor.stream`); raises CallLost."""
        outcomes = self._handle.stream(
            "stream",
            self.version,
            message,
            load_timeout_s,
            timeout_s,
            multiplexed_model_id=self._kept_as,
        )
        async with aclosing(outcomes):
            async for outcome in outcomes:
                yield outcome


class ApplicationHandle:
    """Calls of the versions that one application serves: by the sockets of its replica's processes
    where there are some, else by handle."""

    def __init__(self, application: str, handle: ReplicaHandle) -> None:
        self.application = application
        self._handle = handle
        self._sockets = LocalSockets(handle)
        self._versions: dict[tuple[str, EnvironmentMode | None, int, bool], VersionHandle] = {}

    async def call(self, call: Call, *, start_by: Deadline, is_alone: bool) -> CallResult:
        """One call; waits for a load until `start_by`. `is_alone` says that there is one replica at
        most.

        Raises CallLost and the errors of `PredictionBackend.call`.
        """
        message = packed(call)
        version = self.version(call.model, call.version, aside=call.aside)
        with suppress(ConnectionError):  # the replica knows what became of the process
            answer = await self._sockets.call(version.key, message)
            if answer is not None:
                return call_result(answer)
        outcome = await version.call(
            message, load_timeout_s=start_by.left_s(), timeout_s=call.deadline.left_s()
        )
        answer, load_s = self._learned(version, outcome, is_alone=is_alone)
        return call_result(answer, load_s=load_s)

    async def stream(
        self, call: Call, *, start_by: Deadline, is_alone: bool
    ) -> AsyncGenerator[CallResult]:
        """What a call that streams is answered with, piece by piece; otherwise as `call`."""
        async with aclosing(self._outcomes(call, start_by, is_alone)) as outcomes:
            async for outcome in outcomes:
                piece = streamed(outcome)
                if piece is None:
                    return
                yield piece

    async def _outcomes(
        self, call: Call, start_by: Deadline, is_alone: bool
    ) -> AsyncGenerator[Message]:
        message = packed(call, streams=True)
        version = self.version(call.model, call.version, aside=call.aside)
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
                yield self._learned(version, answered, is_alone=is_alone)[0]

    def _learned(
        self, version: VersionHandle, outcome: tuple[str, Any], *, is_alone: bool
    ) -> tuple[Message, float]:
        """What a replica has of a process, whose address is kept; raises what the outcome means."""
        answer, address, load_s = answered_by_replica(outcome)
        if is_alone:
            self._sockets.learn(version.key, address)
        return answer, load_s

    def version(
        self, model: ServedModel, version: ModelVersion, *, aside: bool = False
    ) -> VersionHandle:
        """The handle of one version, as tags say that it runs, or of it as a shadow."""
        most = model.options.max_loaded_versions
        which = (version.fingerprint, model.environment_of(version), most, aside)
        found = self._versions.get(which)
        if found is None:
            made = VersionHandle(self._handle, VersionId.of(model, version, aside=aside))
            found = self._versions[which] = made
        return found


class RayBackend:
    """A `PredictionBackend` over the applications of a Serve.

    A model whose tags give it to another application is answered by the one that it had until the
    other has loaded what is asked for.
    """

    def __init__(
        self,
        activate: Activate,
        connect: Connect,
        *,
        placement: Placement = OWN,
        retries: Retries = PREDICTIONS,
    ) -> None:
        self._activate = activate
        self._connect = connect
        self._placement = placement
        self._retries = retries
        self._activations: SingleFlight[str, str] = SingleFlight()
        self._handles: dict[str, ApplicationHandle] = {}
        self._answered_by: dict[str, str] = {}
        self._moves: SingleFlight[str, None] = SingleFlight()

    async def call(self, call: Call) -> CallResult:
        """See `PredictionBackend.call`."""
        application = self._application_of(call)
        start_by = call.deadline.share(_STARTING_SHARE)
        try:
            return await self._call(application, call, start_by)
        except CallLost as lost:
            if call.aside:
                raise _lost_aside(lost) from lost
            return await self._call_again(application, call, start_by, lost)

    def _application_of(self, call: Call) -> str:
        name, wanted = call.model.name, self._placement.application_of(call.model)
        known = self._answered_by.setdefault(name, wanted)
        if known != wanted and not call.aside:
            self._moves.start(name, partial(self._move, call, wanted))
        return known

    async def _move(self, call: Call, application: str) -> None:
        """Have the model answered by another application once that can."""
        patience = Deadline.after(_MOVE_S)
        try:
            handle = await self._connected(application, call, patience)
            async with asyncio.timeout(patience.left_s()):
                outcome, _ = await handle.version(call.model, call.version).load()
        except (GatewayError, CallLost, TimeoutError) as problem:
            outcome = str(problem)
        if outcome == "ok":
            self._answered_by[call.model.name] = handle.application
        else:
            _logger.info("%s isn't in %s yet: %s", call.model.name, application, outcome)
            await asyncio.sleep(_MOVE_AGAIN_S)

    async def stream(self, call: Call) -> AsyncGenerator[CallResult]:
        """See `StreamingBackend.stream`."""
        application = self._application_of(call)
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
            if call.aside:
                raise _lost_aside(lost) from lost
            return await self._again(
                application, lambda: self._begin(application, call, start_by), start_by, lost
            )

    async def _begin(self, application: str, call: Call, start_by: Deadline) -> _Begun:
        async def first_of(handle: ApplicationHandle) -> _Begun:
            is_alone = self._placement.most_replicas(call.model) == 1
            pieces = handle.stream(call, start_by=start_by, is_alone=is_alone)
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
        is_alone = self._placement.most_replicas(call.model) == 1
        return await self._at(
            application,
            call,
            start_by,
            lambda handle: handle.call(call, start_by=start_by, is_alone=is_alone),
        )

    async def _at(
        self,
        application: str,
        call: Call,
        start_by: Deadline,
        ask: Callable[[ApplicationHandle], Awaitable[_T]],
    ) -> _T:
        """What comes of asking the application."""
        handle = await self._connected(application, call, start_by)
        try:
            return await ask(handle)
        except CallLost as lost:
            name = handle.application
            if lost.loss is Loss.NO_APPLICATION and self._handles.get(name) is handle:
                del self._handles[name]  # it must be made again
            raise

    async def _connected(
        self, application: str, call: Call, start_by: Deadline
    ) -> ApplicationHandle:
        """The handle of the application, or of the one that has the model by now, once it runs: one
        activation however many wait for it."""
        known = self._handles.get(application)
        if known is not None:
            return known

        async def activate() -> str:
            return await self._activate(call.model.name, call.version.number)

        try:
            async with asyncio.timeout(start_by.left_s()):
                activated = await self._activations.run(call.model.name, activate)
        except TimeoutError:
            raise still_starting() from None
        handle = self._handles.get(activated)
        if handle is None:
            handle = ApplicationHandle(activated, self._connect(activated))
            self._handles[activated] = handle
        return handle


def _lost_aside(lost: CallLost) -> GatewayError:
    """What a shadow's call that is lost comes to: sent again it might end another process."""
    if lost.loss is Loss.INSIDE:
        return ModelFailed("The version's process ended with the call.")
    return ModelUnavailable("The model's processes do not answer.", retry_after_s=_RETRY_AFTER_S)


def _given_up(application: str, lost: CallLost) -> GatewayError:
    """What callers hear of a call that isn't sent again."""
    if lost.loss is Loss.BUSY:
        return Overloaded("The model is busy.", retry_after_s=_RETRY_AFTER_S)
    _logger.error("application %s does not answer: %s", application, lost, exc_info=lost)
    return ModelUnavailable(
        "The model's processes do not answer.",
        retry_after_s=_RETRY_AFTER_S,
        by_model=lost.loss is Loss.INSIDE,  # again and again, or with a stream that had begun
    )
