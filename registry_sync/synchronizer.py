"""Keeps the catalog true to the registry: reads, decides, prepares what takes over, publishes.

Owns the current catalog and the one state machine around a default that moves: where the model is
running, the new default is first loaded and asked once (`VersionPreparer`), and held meanwhile.
Asyncio only; must not import ray. The registry is read in a thread; everything else is on the loop.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from gateway.catalog import Catalog, ModelVersion, ServedModel
from gateway.ports import RegistryStatus, SyncReport
from gateway.single_flight import SingleFlight
from registry_sync.catalog_builder import build_catalog
from registry_sync.catalog_changes import (
    CatalogChanges,
    ChangeLog,
    changes_between,
    describe_change,
)
from registry_sync.default_version import DefaultPolicy
from registry_sync.records import RegistryReading, RegistryUnreachable
from registry_sync.snapshot import SnapshotStore
from registry_sync.source import RegistrySource

_logger = logging.getLogger(__name__)

BEING_LOADED = "It is being loaded before it takes over."


class PreparationFailed(Exception):
    """A version could not be loaded or asked; `reason` is one sentence meant for people."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class VersionPreparer(Protocol):
    """What makes sure that a new default answers without delay."""

    def is_active(self, model: ServedModel) -> bool:
        """Whether anything of that model is running, so that callers would notice a cold start."""

    async def prepare(self, model: ServedModel, version: ModelVersion) -> None:
        """Load the version wherever the model runs and ask it once; raises PreparationFailed."""


@dataclass(frozen=True, slots=True)
class _Failure:
    reason: str
    at: float


class Synchronizer:
    """The catalog's owner, starting from `restored`. `wait_for(generation)` is what feeds are built
    on; `first_generation` is what the first catalog gets where nothing was restored."""

    def __init__(
        self,
        *,
        source: RegistrySource,
        snapshots: SnapshotStore,
        policy: DefaultPolicy,
        preparer: VersionPreparer,
        restored: Catalog | None = None,
        first_generation: int = 1,
        retry_preparation_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._snapshots = snapshots
        self._policy = policy
        self._preparer = preparer
        self._retry_preparation_s = retry_preparation_s
        self._clock = clock
        self._catalog = restored
        self._log = ChangeLog(first_generation if restored is None else restored.generation)
        self._first_generation = first_generation
        self._reading: RegistryReading = ()
        self._answered_at: float | None = None
        self._problem: str | None = None
        self._one_at_a_time = asyncio.Lock()
        self._published = asyncio.Condition()
        self._prepared: set[str] = set()
        self._failed: dict[str, _Failure] = {}
        self._preparing: SingleFlight[str, None] = SingleFlight()
        self._looks: SingleFlight[int, SyncReport] = SingleFlight()
        self._numbers = itertools.count()

    @property
    def catalog(self) -> Catalog | None:
        """The current catalog, None until the registry or a snapshot gave one."""
        return self._catalog

    @property
    def registry(self) -> RegistryStatus:
        """How the registry has been answering."""
        silent = None if self._answered_at is None else self._clock() - self._answered_at
        return RegistryStatus(
            silent_for_s=silent, problem=self._problem, snapshot_problem=self._snapshots.problem
        )

    async def synchronize(self) -> SyncReport:
        """Read the registry and publish what changed; a registry that fails is only reported.

        Each look is one of its own: one that began before may have missed what its caller knows of.
        Once begun it is ended, whoever leaves.
        """
        return await self._looks.run(next(self._numbers), self._look)

    async def _look(self) -> SyncReport:
        async with self._one_at_a_time:
            try:
                reading = await asyncio.to_thread(self._source.read)
            except RegistryUnreachable as error:
                return await self._on_unreachable(error)
            self._reading = reading
            self._answered_at = self._clock()
            if self._problem is not None:
                _logger.info("the registry answers again")
                self._problem = None
            return await self._publish()

    async def wait_for(self, generation: int, *, timeout_s: float) -> Catalog | None:
        """The catalog once it is newer than `generation`; the current one after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s), self._published:
                await self._published.wait_for(
                    lambda: self._catalog is not None and self._catalog.generation > generation
                )
        except TimeoutError:
            pass
        return self._catalog

    def changed_since(self, generation: int) -> frozenset[str] | None:
        """The models that a reader of `generation` doesn't know as they are now, those that are
        gone among them; None where that can't be told. Only for generations of this object."""
        return self._log.since(generation)

    async def settle(self, *, timeout_s: float) -> int:
        """Wait up to `timeout_s` until no version is being prepared; the generation after that."""
        if preparing := list(self._preparing.going_on()):
            await asyncio.wait(preparing, timeout=timeout_s)
        return 0 if self._catalog is None else self._catalog.generation

    async def _on_unreachable(self, error: RegistryUnreachable) -> SyncReport:
        if self._problem is None:
            _logger.warning("%s What is known goes on being served.", error)
        self._problem = str(error)
        generation = 0 if self._catalog is None else self._catalog.generation
        return SyncReport(generation=generation, problem=self._problem)

    async def _publish(self) -> SyncReport:
        before = self._catalog
        after = build_catalog(self._reading, before, policy=self._policy, hold_back=self._hold_back)
        if before is None:
            after = after.model_copy(update={"generation": self._first_generation})
        changes = changes_between(before, after)
        if after is not before:
            _report(changes, before, after)
            if before is not None:
                self._log.add(after.generation, changes)
            self._catalog = after
            self._forget_prepared(after)
            await self._announce()
        if after is not before or self._snapshots.problem is not None:
            await asyncio.to_thread(self._snapshots.save, after)
        return SyncReport(
            generation=after.generation,
            added=changes.added,
            changed=changes.changed,
            removed=changes.removed,
        )

    async def _announce(self) -> None:
        async with self._published:
            self._published.notify_all()

    def _forget_prepared(self, catalog: Catalog) -> None:
        """What has taken over must be prepared anew should it ever come back."""
        defaults = (model.default for model in catalog.models.values())
        self._prepared -= {version.fingerprint for version in defaults if version is not None}

    def _hold_back(self, model: ServedModel, version: ModelVersion) -> str | None:
        key = version.fingerprint
        if key in self._prepared or not self._preparer.is_active(model):
            return None
        failure = self._failed.get(key)
        if failure is not None and self._clock() - failure.at < self._retry_preparation_s:
            return failure.reason
        self._preparing.start(key, partial(self._prepare, model, version))
        return BEING_LOADED

    async def _prepare(self, model: ServedModel, version: ModelVersion) -> None:
        key = version.fingerprint
        try:
            await self._preparer.prepare(model, version)
        except PreparationFailed as failure:
            _logger.warning("%s version %s: %s", model.name, version.number, failure.reason)
            self._failed[key] = _Failure(failure.reason, self._clock())
        # A boundary: a bug there must not leave the version waiting for ever.
        except Exception:
            _logger.exception("%s version %s can't be prepared", model.name, version.number)
            self._failed[key] = _Failure("It can't be prepared; see the log.", self._clock())
        else:
            self._failed.pop(key, None)
            self._prepared.add(key)
        async with self._one_at_a_time:
            await self._publish()


def _report(changes: CatalogChanges, before: Catalog | None, after: Catalog) -> None:
    for name in (*changes.added, *changes.changed):
        old = None if before is None else before.models.get(name)
        _logger.info("%s: %s", name, describe_change(old, after.models[name]))
    for name in changes.removed:
        _logger.info("%s: gone from the registry", name)
