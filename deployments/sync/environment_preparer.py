"""Environments ahead of requests: what each version will run in is found out when it is registered,
and built for those that are asked for by default or by an alias. And what is told of that.

Asyncio only; must not import ray.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from deployments.environments.builder import BuildFailed
from deployments.environments.choice import Choice, NoEnvironment
from deployments.environments.known_files import KnownFiles, Read
from deployments.environments.model_needs import Needs
from deployments.environments.planner import Planner
from gateway.attempt import Attempt
from gateway.catalog import Catalog, EnvironmentMode, EnvironmentStatus, ModelVersion, ServedModel
from gateway.single_flight import SingleFlight
from registry_sync.records import RegistryUnreachable
from registry_sync.version_files import FilesUnreadable, VersionFiles

_logger = logging.getLogger(__name__)

LOOKED_AT = "What it needs is being looked at."
BUILT = "Its environment is being built."
WAITS = "Its environment waits for being built."

_READ_AT_ONCE = 4
_READ_AGAIN_S = 60.0
_REFRESH_S = 1.0
_UNREADABLE = "What it needs can't be read."


class RegisteredFiles(Protocol):
    """Whatever gives the files of registered versions."""

    def files_of(self, name: str, number: int) -> VersionFiles:
        """See `MlflowRegistry.files_of`."""


@dataclass(frozen=True, slots=True)
class _Planned:
    """What a version is to run in; `digest` is that environment's, None where it is the
    gateway's, and `otherwise` the key by which it is told that it lacked something there."""

    choice: Choice
    digest: str | None
    otherwise: str | None


@dataclass(frozen=True, slots=True)
class _Unplanned:
    """Why there is no plan for a version; `again_at` is when it is looked at again, in seconds of
    the monotonic clock, None where only another version would help."""

    reason: str
    again_at: float | None


class EnvironmentPreparer:
    """What versions run in, on this machine. `changed` is called whenever another thing is to be
    told of one. To be closed on its event loop."""

    def __init__(
        self,
        planner: Planner,
        registry: RegisteredFiles,
        known_files: KnownFiles,
        *,
        max_bytes: int,
        changed: Callable[[], Awaitable[None]],
    ) -> None:
        self._planner = planner
        self._registry = registry
        self._known_files = known_files
        self._max_bytes = max_bytes
        self._changed = changed
        self._plans: dict[str, _Planned | _Unplanned] = {}
        self._planning: SingleFlight[str, None] = SingleFlight()
        self._reading = asyncio.Semaphore(_READ_AT_ONCE)
        self._building: SingleFlight[str, None] = SingleFlight()
        self._removed: set[str] = set()
        self._lacking: Collection[str] = ()
        self._again_at: dict[str, float] = {}
        self._catalog: Catalog | None = None
        self._statuses: Mapping[str, Mapping[int, EnvironmentStatus]] = {}
        self._told: dict[str, EnvironmentStatus] = {}
        self._waits_since: dict[str, float] = {}
        self._looking = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None
        self._is_all_due = False
        self.stamp = 0
        """Another one whenever something else is told."""

    @property
    def statuses(self) -> Mapping[str, Mapping[int, EnvironmentStatus]]:
        """What is to be told, by model and number."""
        return self._statuses

    def problem(self, model: ServedModel, version: ModelVersion) -> str | None:
        """Why a version can't be loaded for want of its environment, or of word of it; None where
        that is there."""
        tag = model.environment_of(version)
        if self._planner.builds_nothing(tag):
            return None
        status = self._told.get(_key(version, tag))
        if status is None:
            return LOOKED_AT
        return None if status.state == "ready" else status.reason or BUILT

    def look(self, catalog: Catalog) -> None:
        """See to the environments of a catalog's versions; returns at once."""
        self._catalog = catalog
        there = set()
        for model in catalog.models.values():
            ahead = model.notable
            for version in sorted(model.versions, key=lambda each: each.number not in ahead):
                if not version.is_servable:
                    continue
                tag = model.environment_of(version)
                key = _key(version, tag)
                there.add(key)
                if self._is_due(key):
                    self._planning.start(key, partial(self._plan, model.name, version, tag, key))
                elif version.number in ahead:
                    self._build_ahead(model.name, version, key)
        gone = self._plans.keys() - there
        for key in gone:
            del self._plans[key]
        if gone:
            self._known_files.forget_all_but(_fingerprints(catalog))
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._keep_told(), context=Context())
        self._is_all_due = True

    async def settle(self, *, timeout_s: float) -> None:
        """Wait up to `timeout_s` until it is known what each version needs, and what is built
        quickly is there."""
        deadline = time.monotonic() + timeout_s
        for flights in (self._planning, self._building):
            going_on = list(flights.going_on())
            if going_on:
                await asyncio.wait(going_on, timeout=max(0.0, deadline - time.monotonic()))
        await self._refresh()

    async def close(self) -> None:
        """End all builds."""
        if self._refreshing is not None:
            self._refreshing.cancel()
        await self._planner.builder.close()

    def _is_due(self, key: str) -> bool:
        plan = self._plans.get(key)
        if isinstance(plan, _Unplanned):
            return plan.again_at is not None and time.monotonic() >= plan.again_at
        return plan is None or plan.otherwise in self._lacking

    async def _plan(
        self, name: str, version: ModelVersion, tag: EnvironmentMode | None, key: str
    ) -> None:
        async with self._reading:
            # Whatever one version's files make fail, it is told of that one.
            failed = "what %s version %s needs can't be read"
            with Attempt(_logger, failed, name, version.number) as attempt:
                self._plans[key] = await self._planned(name, version, tag)
            if attempt.has_failed:
                self._plans[key] = _Unplanned(_UNREADABLE, time.monotonic() + _READ_AGAIN_S)
        model = None if self._catalog is None else self._catalog.models.get(name)
        if model is not None and version.number in model.notable:
            self._build_ahead(name, version, key)

    async def _planned(
        self, name: str, version: ModelVersion, tag: EnvironmentMode | None
    ) -> _Planned | _Unplanned:
        try:
            read = await asyncio.to_thread(self._reader, name, version)
            choice = await self._planner.plan(read, fingerprint=version.fingerprint, tag=tag)
            otherwise = None
            if choice.otherwise is not None:
                otherwise = self._planner.key_of_lacking(version.fingerprint, choice.otherwise)
            return _Planned(choice, self._digest(choice.needs), otherwise)
        except NoEnvironment as problem:
            return _Unplanned(problem.reason, None)
        except LookupError:
            return _Unplanned("The registry has no such version any more.", None)
        except (RegistryUnreachable, FilesUnreadable) as problem:
            again_at = time.monotonic() + _READ_AGAIN_S
            return _Unplanned(f"What it needs can't be read: {problem}", again_at)

    def _digest(self, needs: Needs | None) -> str | None:
        return None if needs is None else self._planner.builder.digest(needs)

    def _reader(self, name: str, version: ModelVersion) -> Read:
        files: list[VersionFiles] = []

        def read(path: str) -> bytes | None:
            if not files:
                files.append(self._registry.files_of(name, version.number))
            return files[0].read(path)

        return self._known_files.reader(version.fingerprint, read)

    def _build_ahead(self, name: str, version: ModelVersion, key: str) -> None:
        plan = self._plans.get(key)
        if not isinstance(plan, _Planned) or plan.digest is None or plan.digest in self._removed:
            return
        status, digest = self._told.get(key), plan.digest
        is_there = status is not None and status.state == "ready"
        is_due = time.time() >= self._again_at.get(digest, 0.0)
        if is_due and not is_there and digest not in self._building:
            self._waits_since[digest] = time.time()
            self._building.start(digest, partial(self._build, name, version, plan.choice, digest))

    async def _build(self, name: str, version: ModelVersion, choice: Choice, digest: str) -> None:
        failed = "the environment of %s version %s can't be built"
        try:
            with Attempt(_logger, failed, name, version.number) as attempt:
                await self._build_needs(name, version, choice, digest)
            if attempt.has_failed:  # not tried again in every round
                self._again_at[digest] = time.time() + _READ_AGAIN_S
        finally:
            self._waits_since.pop(digest, None)
            await self._refresh()

    async def _build_needs(
        self, name: str, version: ModelVersion, choice: Choice, digest: str
    ) -> None:
        assert choice.needs is not None
        builder, needs = self._planner.builder, choice.needs
        try:
            if await asyncio.to_thread(builder.store.find, digest) is not None:
                return
            try:
                files = partial(self._registry.files_of, name, version.number)
                await self._planner.build(needs, files, ahead=True)
            except BuildFailed as failed:
                self._again_at[digest] = failed.retry_at
                _logger.warning(
                    "the environment of %s version %s can't be built: %s",
                    name,
                    version.number,
                    failed,
                )
            # Also after one that failed: it has left something in what uv keeps.
            removed = await builder.prune(self._max_bytes, {digest})
            # Not built again before somebody asks: there is no room for all.
            self._removed |= {each.digest for each in removed}
        except (LookupError, RegistryUnreachable, FilesUnreadable, OSError) as error:
            _logger.warning(
                "the files of %s version %s can't be fetched: %s", name, version.number, error
            )

    async def _keep_told(self) -> None:
        """Look now and then, since replicas and other gateways build, too."""
        while True:
            await asyncio.sleep(_REFRESH_S)
            with Attempt(_logger, "the environments can't be looked at"):
                all_of_them, self._is_all_due = self._is_all_due, False
                await self._refresh(all_of_them=all_of_them)

    async def _refresh(self, *, all_of_them: bool = False) -> None:
        """Have told what is the case now, of those that may be another soon or of all."""
        if self._catalog is None:
            return
        async with self._looking:
            settled = () if all_of_them else ("ready", "missing")
            known = {k: told for k, told in self._told.items() if told.state in settled}
            plans = dict(self._plans)
            to_look_at = {key: plan for key, plan in plans.items() if key not in known}
            if not to_look_at and not all_of_them and self._told.keys() == plans.keys():
                return
            looked_at = await asyncio.to_thread(self._looked_at, to_look_at)
            self._told = {key: looked_at.get(key) or known[key] for key in plans}
        statuses = _by_model(self._catalog, self._told)
        if statuses != self._statuses:
            self._statuses = statuses
            self.stamp += 1
            await self._changed()

    def _looked_at(
        self, plans: Mapping[str, _Planned | _Unplanned]
    ) -> dict[str, EnvironmentStatus]:
        store = self._planner.builder.store
        self._lacking, building = store.lacking.all(), store.building()
        return {key: self._status(plan, building) for key, plan in plans.items()}

    def _status(
        self, plan: _Planned | _Unplanned, building: Mapping[str, float]
    ) -> EnvironmentStatus:
        if isinstance(plan, _Unplanned):
            return EnvironmentStatus(kind="own", state="failed", why="its own", reason=plan.reason)
        choice, digest = plan.choice, plan.digest
        known = EnvironmentStatus(
            kind=choice.kind, state="ready", why=choice.why, warning=choice.warning, key=digest
        )
        store = self._planner.builder.store
        if digest is None or store.find(digest) is not None:
            return known
        failure = store.failure(digest)
        if failure is not None:
            # Also while it is tried once more: what it says is known until that has gone well, and
            # who watches it for an alarm doesn't see it come and go with every try.
            reason = f"Its environment can't be built: {failure.reason}"
            update = {"state": "failed", "reason": reason, "lines": failure.lines}
            return known.model_copy(update=update)
        if digest in building:
            return known.model_copy(
                update={"state": "building", "reason": BUILT, "since": building[digest]}
            )
        waits_since = self._waits_since.get(digest)
        if waits_since is not None:
            return known.model_copy(
                update={"state": "waiting", "reason": WAITS, "since": waits_since}
            )
        return known.model_copy(update={"state": "missing"})


def _key(version: ModelVersion, tag: EnvironmentMode | None) -> str:
    return f"{version.fingerprint} {tag or ''}"


def _fingerprints(catalog: Catalog) -> set[str]:
    return {each.fingerprint for model in catalog.models.values() for each in model.versions}


def _by_model(
    catalog: Catalog, told: Mapping[str, EnvironmentStatus]
) -> dict[str, dict[int, EnvironmentStatus]]:
    found: dict[str, dict[int, EnvironmentStatus]] = {}
    for name, model in catalog.models.items():
        for version in model.versions:
            status = told.get(_key(version, model.environment_of(version)))
            if status is not None:
                found.setdefault(name, {})[version.number] = status
    return found
