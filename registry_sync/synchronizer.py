"""Keeps the catalog true to the registry: reads, decides, prepares what takes over, publishes.

Owns the current catalog and the one state machine around a default that moves: where the model is
running, or the old default was loaded and the new one never, the new one is first loaded and asked
once (`VersionPreparer`), and held meanwhile. What has to wait is decided by `catalog_builder`.
Asyncio only; must not import ray. The registry is read in a thread; everything else is on the loop.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from gateway.attempt import Attempt
from gateway.catalog import Catalog, ModelVersion, ServedModel
from gateway.history import HistoryEntry
from gateway.ports import RegistryStatus, SyncReport
from gateway.single_flight import SingleFlight
from registry_sync.canary import with_canary_stopped
from registry_sync.catalog_builder import build_catalog, to_be_pinned
from registry_sync.catalog_changes import (
    CatalogChanges,
    ChangeLog,
    changes_between,
    describe_change,
    level_of_change,
)
from registry_sync.default_version import (
    DefaultPolicy,
    EnvironmentProblem,
    LoadFacts,
    no_environment_problem,
)
from registry_sync.history import history_of
from registry_sync.pin_writer import Pins
from registry_sync.pins import pin_tags
from registry_sync.records import RegistryReading, RegistryUnreachable
from registry_sync.snapshot import Restored, SnapshotStore
from registry_sync.source import RegistrySource

_logger = logging.getLogger(__name__)

_LONGEST_RETRY_S = 3600.0
# Of models that sleep: a night's retraining moves many defaults at once.
_WOKEN_AT_ONCE = 2
# The others at the next looks: a look waits for them.
_PINNED_AT_ONCE = 50


class History(Protocol):
    """Where changes of models are noted."""

    def append(self, entries: Sequence[HistoryEntry]) -> None:
        """Add what happened. Blocks."""


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
        """Load the version wherever the model runs, waking it where it sleeps, and ask it once;
        raises PreparationFailed."""


@dataclass(frozen=True, slots=True)
class _Failure:
    reason: str
    times: int
    retry_at: float


class Synchronizer:
    """The catalog's owner, starting from `restored`. `wait_for(generation)` is what feeds are built
    on; `first_generation` is what the first catalog gets where nothing was restored, `captures`
    whether there is a place for what models' tags say is captured, `pins` where defaults are
    pinned, if they are."""

    def __init__(
        self,
        *,
        source: RegistrySource,
        snapshots: SnapshotStore,
        policy: DefaultPolicy,
        preparer: VersionPreparer,
        environment_problem: EnvironmentProblem = no_environment_problem,
        history: History | None = None,
        restored: Restored | None = None,
        first_generation: int = 1,
        captures: bool = False,
        pins: Pins | None = None,
        retry_preparation_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._snapshots = snapshots
        self._policy = policy
        self._preparer = preparer
        self._environment_problem = environment_problem
        self._history = history
        self._captures = captures
        self._pins = pins
        self._retry_preparation_s = retry_preparation_s
        self._clock = clock
        self._catalog = None if restored is None else restored.catalog
        self._log = ChangeLog(
            first_generation if self._catalog is None else self._catalog.generation
        )
        self._first_generation = first_generation
        self._reading: RegistryReading = ()
        self._answered_at: float | None = None
        self._problem: str | None = None
        self._one_at_a_time = asyncio.Lock()
        # Of its own: a registry that is slow keeps nobody from stopping a canary.
        self._publishing = asyncio.Lock()
        self._published = asyncio.Condition()
        self._loaded: set[str] = set() if restored is None else set(restored.loaded)
        self._prepared: set[str] = set()
        self._failed: dict[str, _Failure] = {}
        self._preparing: SingleFlight[str, None] = SingleFlight()
        self._looks: SingleFlight[int, SyncReport] = SingleFlight()
        self._numbers = itertools.count()
        self._waking = asyncio.Semaphore(_WOKEN_AT_ONCE)
        self._saving: asyncio.Task[None] | None = None
        self._is_saved = True

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

    async def reconsider(self) -> None:
        """Decide anew what the defaults are, by what the registry said last."""
        async with self._one_at_a_time:
            if self._answered_at is not None:
                await self._publish()

    async def stop_canary(self, name: str, trial: str, why: str) -> None:
        """Have nobody go to the canary of a model any more, if that trial is going on still; the
        registry needn't answer."""
        async with self._publishing:
            if self._catalog is not None:
                after = with_canary_stopped(self._catalog, name, trial, why)
                if after is not None:
                    await self._replace(after)
                    await self._save(after)

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

    def note_loaded(self, version: ModelVersion) -> None:
        """A model's process has loaded that version. Of one that is or was to be prepared, the
        preparation alone tells what it is worth."""
        key = version.fingerprint
        if key not in self._preparing and key not in self._failed:
            self._remember_loaded(key)

    async def settle(self, *, timeout_s: float) -> int:
        """Wait up to `timeout_s` until no version is being prepared; the generation after that."""
        if preparing := list(self._preparing.going_on()):
            await asyncio.wait(preparing, timeout=timeout_s)
        return 0 if self._catalog is None else self._catalog.generation

    async def _on_unreachable(self, error: RegistryUnreachable) -> SyncReport:
        if self._problem is None:
            known = "Nothing is" if self._catalog is None else "What is known goes on being"
            _logger.warning("%s %s served.", error, known)
        self._problem = str(error)
        generation = 0 if self._catalog is None else self._catalog.generation
        return SyncReport(generation=generation, problem=self._problem)

    async def _publish(self) -> SyncReport:
        async with self._publishing:
            report = await self._publish_next()
        if self._pins is not None and self._catalog is not None:
            await self._pin(self._pins, self._catalog)
        return report

    async def _publish_next(self) -> SyncReport:
        before = self._catalog
        plan = build_catalog(
            self._reading,
            before,
            policy=self._policy,
            facts=self._load_facts(),
            captures=self._captures,
            pins=self._pins is not None,
        )
        # What was prepared has taken over now; should it ever come back it is prepared anew.
        self._prepared.clear()
        after = plan.catalog
        if before is None:
            after = after.model_copy(update={"generation": self._first_generation})
        changes = CatalogChanges()
        if after is not before:
            changes = await self._replace(after)
        self._prepare_all(plan.waiting)
        if after is not before or self._snapshots.problem is not None:
            await self._save(after)
        return SyncReport(
            generation=after.generation,
            added=changes.added,
            changed=changes.changed,
            removed=changes.removed,
        )

    async def _replace(self, after: Catalog) -> CatalogChanges:
        """Have that catalog be the current one, and tell; what is different in it."""
        before, self._catalog = self._catalog, after
        changes = changes_between(before, after)
        _report(changes, before, after)
        if before is not None:
            self._log.add(after.generation, changes)
        self._forget_all_but(after)
        await self._announce()
        if self._history is not None:
            happened = history_of(changes, before, after, at=time.time())
            await asyncio.to_thread(self._history.append, happened)
        return changes

    async def _pin(self, pins: Pins, catalog: Catalog) -> None:
        """Have the registry say what the defaults are. One that was pinned is pinned again until
        the registry was read anew, which changes nothing."""
        due = [
            (record.name, pin_tags(catalog.models[record.name]))
            for record in self._reading
            if record.name in catalog.models and to_be_pinned(record, catalog.models[record.name])
        ]
        if due:
            await asyncio.to_thread(pins.write, due[:_PINNED_AT_ONCE])

    async def _announce(self) -> None:
        async with self._published:
            self._published.notify_all()

    async def _save(self, catalog: Catalog) -> None:
        self._is_saved = True
        await asyncio.to_thread(self._snapshots.save, catalog, frozenset(self._loaded))

    def _remember_loaded(self, key: str) -> None:
        """Have it on disk soon: many that are loaded one after the other are saved together."""
        if key in self._loaded:
            return
        self._loaded.add(key)
        self._is_saved = False
        if self._saving is None or self._saving.done():
            self._saving = asyncio.create_task(self._save_loaded())

    async def _save_loaded(self) -> None:
        while not self._is_saved:
            async with self._publishing:
                if self._catalog is None:
                    return
                await self._save(self._catalog)

    def _forget_all_but(self, catalog: Catalog) -> None:
        known = {v.fingerprint for model in catalog.models.values() for v in model.versions}
        self._loaded &= known
        self._failed = {key: failure for key, failure in self._failed.items() if key in known}

    def _load_facts(self) -> LoadFacts:
        return LoadFacts(
            loaded=frozenset(self._loaded),
            prepared=frozenset(self._prepared),
            failed={key: failure.reason for key, failure in self._failed.items()},
            is_running=self._preparer.is_active,
            environment_problem=self._environment_problem,
        )

    def _prepare_all(self, waiting: Iterable[tuple[ServedModel, ModelVersion]]) -> None:
        """Begin with those that aren't being prepared, and did not fail lately."""
        for model, version in waiting:
            key = version.fingerprint
            failure = self._failed.get(key)
            is_due = failure is None or self._clock() >= failure.retry_at
            if is_due:
                self._preparing.start(key, partial(self._prepare, model, version))

    async def _prepare(self, model: ServedModel, version: ModelVersion) -> None:
        key = version.fingerprint
        failed = "%s version %s can't be prepared"
        with Attempt(_logger, failed, model.name, version.number) as attempt:
            await self._try_to_prepare(model, version)
        if attempt.has_failed:  # it must not wait for ever
            self._note_failure(key, "It can't be prepared; see the log.")
        async with self._one_at_a_time:
            await self._publish()

    async def _try_to_prepare(self, model: ServedModel, version: ModelVersion) -> None:
        key = version.fingerprint
        try:
            async with nullcontext() if self._preparer.is_active(model) else self._waking:
                await self._preparer.prepare(model, version)
        except PreparationFailed as failure:
            _logger.warning("%s version %s: %s", model.name, version.number, failure.reason)
            self._note_failure(key, failure.reason)
        else:
            self._failed.pop(key, None)
            self._prepared.add(key)
            self._remember_loaded(key)

    def _note_failure(self, key: str, reason: str) -> None:
        """To be tried again, less and less often: each time may wake a model that sleeps."""
        times = 1 if (before := self._failed.get(key)) is None else before.times + 1
        pause_s = min(self._retry_preparation_s * 2 ** min(times - 1, 16), _LONGEST_RETRY_S)
        self._failed[key] = _Failure(reason, times, self._clock() + pause_s)


def _report(changes: CatalogChanges, before: Catalog | None, after: Catalog) -> None:
    for name in (*changes.added, *changes.changed):
        old = None if before is None else before.models.get(name)
        new = after.models[name]
        _logger.log(level_of_change(old, new), "%s: %s", name, describe_change(old, new))
    for name in changes.removed:
        _logger.info("%s: gone from the registry", name)
