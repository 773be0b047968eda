"""Versions of a model, each asked in a process of its own, in the environment that it has in a
gateway: without a gateway, and without Ray.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from deployments.environments.planner import environment_settings
from deployments.model_calls.outcomes import answered_by_replica, call_result, packed
from deployments.model_replica.host_settings import HostSettings
from deployments.model_replica.processes import Processes
from deployments.model_replica.residents import Keep, Resident
from deployments.model_replica.supervisor import Supervisor
from deployments.model_replica.version_process import VersionId
from deployments.settings import Settings
from gateway.catalog import ModelVersion, ServedModel
from gateway.contract import Frame, Output, Outputs, Request
from gateway.deadline import Deadline
from gateway.ports import Call

Show = Callable[[str], None]

_LOOK_AGAIN_S = 1.0


class NotLoadable(Exception):
    """A version can't be asked at all; the sentence is for people."""


class LocalVersions:
    """Asks versions of one model; `show` is told what is waited for."""

    def __init__(
        self, supervisor: Supervisor, model: ServedModel, *, timeout_s: float, show: Show
    ) -> None:
        self._supervisor = supervisor
        self._model = model
        self._timeout_s = timeout_s
        self._show = show

    async def load(self, version: ModelVersion) -> None:
        """Have a version in memory, its environment built first where that isn't there; raises
        NotLoadable."""
        wanted = VersionId.of(self._model, version)
        while True:
            self._show(f"Loading version {version.number} …")
            kind, told = await self._supervisor.load(wanted)
            if kind == "ok":
                return
            if kind != "building":
                raise NotLoadable(f"{wanted.name} can't be loaded: {told['reason']}")
            self._show(f"Building the environment of version {version.number} …")
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def ask(self, version: ModelVersion, request: Request) -> Outputs:
        """What a version answers to each frame of a request; raises a GatewayError."""
        return [
            (places, await self._call(version, request, frame)) for places, frame in request.frames
        ]

    async def _call(self, version: ModelVersion, request: Request, frame: Frame) -> Output:
        deadline = Deadline.after(self._timeout_s)
        call = Call(
            model=self._model,
            version=version,
            frame=frame,
            params=request.params,
            deadline=deadline,
            patience_s=self._timeout_s,
        )
        outcome = await self._supervisor.call(
            VersionId.of(self._model, version),
            packed(call),
            load_timeout_s=deadline.left_s(),
            give_up_at=deadline.at_s,
        )
        answer, _, load_s = answered_by_replica(outcome)
        return call_result(answer, load_s=load_s).output


@asynccontextmanager
async def local_versions(
    settings: Settings, model: ServedModel, show: Show
) -> AsyncIterator[LocalVersions]:
    """Processes for versions of that model, until the block ends. Their files are fetched into a
    folder that goes with it; environments are those below the state folder."""
    processes = Processes()
    with tempfile.TemporaryDirectory(prefix="modelmux-") as folder:
        host = HostSettings(
            tracking_uri=settings.tracking_uri,
            registry_uri=settings.registry_uri or settings.tracking_uri,
            artifact_folder=folder,
            max_loaded_versions=2,
            environments=environment_settings(settings),
            load_timeout_s=settings.load_timeout_s,
        )
        supervisor = Supervisor(host, keep=_kept, processes=processes)
        try:
            yield LocalVersions(supervisor, model, timeout_s=settings.request_timeout_s, show=show)
        finally:
            await supervisor.close()


def _kept(take: Callable[[str], Awaitable[Resident]]) -> Keep:
    """All that were taken stay: there are two."""
    kept: dict[str, Resident] = {}

    async def resident(key: str) -> Resident:
        if key not in kept:
            kept[key] = await take(key)
        return kept[key]

    return resident
