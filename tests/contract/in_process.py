"""A prediction backend in this process: the replica's own `VersionHost` per model, without Ray."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path

from deployments.model_calls.outcomes import call_result, plain_call
from deployments.model_replica.loaded_version import LoadedVersion
from deployments.model_replica.loader import HostSettings
from deployments.model_replica.versions import Resident, VersionHost
from gateway.ports import Call, CallResult


class InProcessBackend:
    """Fulfils `PredictionBackend`; hosts are made on the first call of a model."""

    def __init__(self, tracking_uri: str, folder: Path) -> None:
        self._tracking_uri = tracking_uri
        self._folder = folder
        self._hosts: dict[str, VersionHost] = {}

    async def call(self, call: Call) -> CallResult:
        """See `PredictionBackend.call`."""
        name = call.model.name
        if name not in self._hosts:
            self._hosts[name] = self._host(name, call.model.options.max_loaded_versions)
        outcome = await self._hosts[name].predict(
            plain_call(
                call.version,
                call.frame,
                call.params,
                give_up_at=call.deadline.at_s,
                patience_s=call.patience_s,
            ),
            call.deadline.share(0.9).left_s(),
        )
        return call_result(outcome)

    def _host(self, name: str, size: int) -> VersionHost:
        settings = HostSettings(
            model=name,
            tracking_uri=self._tracking_uri,
            registry_uri=self._tracking_uri,
            artifact_folder=str(self._folder),
            record_folder=str(self._folder / "record" / hashlib.sha256(name.encode()).hexdigest()),
            max_loaded_versions=size,
        )
        return VersionHost(settings, keep=lambda take: _lru(take, size))


def _lru(take: Resident, size: int) -> Resident:
    kept: OrderedDict[str, LoadedVersion] = OrderedDict()

    async def resident(key: str) -> LoadedVersion:
        if key not in kept:
            kept[key] = await take(key)
        kept.move_to_end(key)
        while len(kept) > size:
            kept.popitem(last=False)
        return kept[key]

    return resident
