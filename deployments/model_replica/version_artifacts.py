"""Versions' artifacts on this machine's disk, fetched by processes.

Asyncio only; must not import ray.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

from deployments.logs import fields
from deployments.model_process.artifacts import artifacts_folder
from deployments.model_replica.host_settings import HostSettings
from deployments.model_replica.output_lines import OutputLines
from deployments.model_replica.processes import Processes
from deployments.model_replica.start_methods import StartMethod
from deployments.model_replica.version_process import LoadFailed, ProcessEnded, VersionId

_logger = logging.getLogger("modelmux.supervisor")


class VersionArtifacts:
    """The artifacts of all versions; each is fetched by a process that is started by `method`."""

    def __init__(self, settings: HostSettings, processes: Processes, method: StartMethod) -> None:
        self._settings = settings
        self._processes = processes
        self._method = method

    def folder(self, version: VersionId) -> Path:
        """Where they are, or will be."""
        return artifacts_folder(Path(self._settings.artifact_folder), version.fingerprint)

    async def fetch(self, version: VersionId) -> None:
        """Have the version's artifacts on disk, fetched by a process, since that takes MLflow and
        whatever the store needs. Raises LoadFailed, ProcessEnded and StartFailed."""
        if self.folder(version).is_dir():
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def hear(event: dict[str, Any]) -> None:
            if done.done():
                return
            if event.get("event") == "ready":
                done.set_result(None)
            elif event.get("event") == "failed":
                text = "the artifacts of %s can't be fetched: %s: %s"
                _logger.error(
                    text,
                    version.name,
                    event.get("reason"),
                    event.get("text"),
                    extra=fields(**version.where),
                )
                reason = f"its artifacts can't be fetched: {event.get('reason')}"
                done.set_exception(LoadFailed(reason))

        job = {
            "kind": "fetch",
            "model": version.model,
            "number": version.number,
            "fingerprint": version.fingerprint,
            "into": self._settings.artifact_folder,
            "tracking_uri": self._settings.tracking_uri,
            "registry_uri": self._settings.registry_uri,
        }
        process = await self._processes.start(
            job,
            self._method,
            hear=hear,
            output=OutputLines(version.name, version.where),
        )
        await asyncio.wait([done, process.ended], return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            done.set_exception(ProcessEnded(process.how_it_ended()))
        done.result()
