"""Calls of model deployments by handle; the place where every Ray exception becomes one of ours.

A replica answers with a plain outcome (see `VersionHost.predict`), so what crosses here as an
exception is Ray's own: the replica died, the application is gone, the request was cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.activation import DEPLOYMENT, application_name
from deployments.outcomes import Outcome, call_result, starting_deadline_s, still_starting
from deployments.socket_line import SocketLine
from deployments.version_host import version_key
from gateway.catalog import ModelVersion
from gateway.contract import Frame
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
        key = version_key(version.number, version.fingerprint)
        self._version = version
        # Made once: `options` copies the handle, which costs a tenth of a call.
        self._handle = handle.options(
            method_name="predict",
            multiplexed_model_id=key,
            request_serialization=_SERIALIZATION,
            response_serialization=_SERIALIZATION,
        )

    async def predict(
        self, frame: Frame, params: Mapping[str, Any], *, load_timeout_s: float
    ) -> Outcome:
        """One call of `VersionHost.predict`; raises RayError and RayServeException."""
        outcome: Outcome = await self._handle.remote(
            self._version.number,
            self._version.fingerprint,
            (frame.layout, frame.names, frame.columns),
            dict(params),
            load_timeout_s,
        )
        return outcome


class ApplicationHandle:
    """Calls of the versions that one application serves: on the line to its replica's socket where
    there is one, else by handle."""

    def __init__(self, name: str) -> None:
        self._handle = serve.get_deployment_handle(DEPLOYMENT, name)
        self._line = SocketLine(self._handle)
        self._versions: dict[str, VersionHandle] = {}

    async def predict(self, call: Call, *, start_by: float) -> Outcome:
        """One call; waits for a load until `start_by` (of the monotonic clock).

        Raises RayError and RayServeException.
        """
        with suppress(ConnectionError):  # Ray knows what became of the replica
            outcome = await self._line.predict(
                call.version,
                call.frame,
                call.params,
                give_up_at=time.monotonic() + call.timeout_s,
            )
            if outcome is not None:
                return outcome
        left_s = max(0.0, start_by - time.monotonic())
        outcome = await self.version(call.version).predict(
            call.frame, call.params, load_timeout_s=left_s
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
    """A `PredictionBackend` over Serve handles: finds the application, calls it, once more if it
    went away meanwhile."""

    def __init__(self, activate: Activate) -> None:
        self._activate = activate
        self._handles: dict[str, ApplicationHandle] = {}

    async def predict(self, call: Call) -> CallResult:
        """See `PredictionBackend.predict`."""
        application = application_name(call.model, call.version)
        try:
            outcome = await self._call(application, call)
        except (RayError, RayServeException) as error:
            _logger.warning("a call of %s did not come back: %s", application, type(error).__name__)
            self._handles.pop(application, None)
            outcome = await self._call_again(application, call)
        return call_result(outcome)

    async def _call_again(self, application: str, call: Call) -> Outcome:
        try:
            return await self._call(application, call)
        except BackPressureError as error:
            raise Overloaded("The model is busy.", retry_after_s=_RETRY_AFTER_S) from error
        except (RayError, RayServeException) as error:
            _logger.exception("application %s does not answer", application)
            raise ModelUnavailable(
                "The model's processes do not answer.", retry_after_s=_RETRY_AFTER_S
            ) from error

    async def _call(self, application: str, call: Call) -> Outcome:
        start_by = time.monotonic() + starting_deadline_s(call.timeout_s)
        handle = self._handles.get(application) or await self._activated(application, call)
        return await handle.predict(call, start_by=start_by)

    async def _activated(self, application: str, call: Call) -> ApplicationHandle:
        try:
            async with asyncio.timeout(starting_deadline_s(call.timeout_s)):
                await self._activate(call.model.name, call.version.number)
        except TimeoutError:
            raise still_starting() from None
        handle = ApplicationHandle(application)
        self._handles[application] = handle
        return handle
