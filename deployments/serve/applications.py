"""Serve's applications: made, looked at and deleted, in threads (Serve's functions block)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ray import serve
from ray.serve.schema import LoggingConfig

from deployments.serve.client import application_status
from deployments.serve.ports import ApplicationSeen, ApplicationStatus

_T = TypeVar("_T")

_QUIET = LoggingConfig(log_level="WARNING", enable_access_log=False)


class RayApplications:
    """The `ServeApplications` of the Serve that this process is connected to."""

    def __init__(self) -> None:
        self._one_at_a_time = asyncio.Lock()

    async def run(self, name: str, build: Callable[[], Any]) -> None:
        """See `ServeApplications.run`."""
        await self._alone(_run, name, build)

    async def status(self, name: str) -> ApplicationStatus:
        """See `ServeApplications.status`."""
        return ApplicationStatus((await asyncio.to_thread(application_status, name)).value)

    async def list(self) -> Mapping[str, ApplicationSeen]:
        """See `ServeApplications.list`."""
        found = await self._alone(serve.status)
        return {
            name: ApplicationSeen(
                status=ApplicationStatus(application.status.value),
                deployments=tuple(application.deployments),
            )
            for name, application in found.applications.items()
        }

    async def delete(self, name: str) -> None:
        """See `ServeApplications.delete`."""
        await asyncio.to_thread(serve.delete, name)

    async def _alone(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Call Serve in a thread, one call at a time.

        Whenever Ray 2.60 makes a deployment's configuration it registers a module with cloudpickle
        and takes that back (`_serialize_request_router_cls` in ray/serve/config.py): of two threads
        at once one fails.
        """
        async with self._one_at_a_time:
            return await asyncio.to_thread(function, *arguments)


def _run(name: str, build: Callable[[], Any]) -> None:
    target = serve.RunTarget(target=build(), name=name, route_prefix=None, logging_config=_QUIET)
    serve.run_many([target], wait_for_applications_running=False)
