"""The sync service: one replica that owns the catalog and the applications of models.

A Serve deployment over `registry_sync.synchronizer` and `deployments.sync.activator`. Ingress
replicas fetch the catalog from it by a long poll and ask it to activate what nobody has called yet.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from ray import serve

from deployments.application_names import MODEL_HOST, SHARED
from deployments.backoff import Backoff
from deployments.catalog_updates import CatalogUpdate, Position, RegistryNews, packed
from deployments.environments.known_files import KnownFiles
from deployments.environments.planner import Planner, environment_settings
from deployments.logs import PACKAGES, LogOptions, configure_logging
from deployments.model_application import ModelApplications, ModelApplicationSettings
from deployments.model_replica.load_events import LoadEvents
from deployments.placement import placement_by
from deployments.serve.applications import RayApplications
from deployments.serve.channels import reach_replicas_anew
from deployments.serve.handles import replica_handle
from deployments.serve.queue_reports import report_who_waits
from deployments.serve.replica_ports import listen_on_own_address
from deployments.serve.spare_worker import have_spare_worker
from deployments.settings import Settings
from deployments.shadow_report import ShadowReport
from deployments.sync.activator import Activator
from deployments.sync.environment_preparer import EnvironmentPreparer
from deployments.sync.load_metrics import HostLedger
from deployments.sync.load_problems import LoadProblems
from deployments.sync.loaded_ahead import LoadedAhead
from deployments.sync.reconciler import ActivationFailed
from deployments.sync.shadow_ledger import ShadowLedger
from deployments.sync.version_preparer import ReplicaVersionPreparer
from gateway.attempt import Attempt
from gateway.canary import Counts
from gateway.catalog import Catalog, ModelVersion, ServedModel
from gateway.metrics.families import Reading
from gateway.ports import SyncReport
from registry_sync.canary_watch import CanaryWatch
from registry_sync.default_version import DefaultPolicy
from registry_sync.history_file import HistoryFile
from registry_sync.pin_writer import PinWriter
from registry_sync.shadow_file import ShadowFile
from registry_sync.snapshot import Restored, SnapshotStore
from registry_sync.source import MlflowRegistry, NamePatterns
from registry_sync.synchronizer import PreparationFailed, Synchronizer
from registry_sync.uris import without_credentials

_logger = logging.getLogger(__name__)

_START_TIMEOUT_S = 120.0
_SETTLE_S = 10.0
_LOAD_AHEAD_LOOK_S = 1.0
_SPARE_AFTER_S = 3.0
_LONGEST_PAUSE_S = 60.0
_ADOPT_AGAIN_S = 0.5

_NOT_MOVED = "It can't move to another deployment yet, so it runs where it did:"


class SyncService:
    """The one owner of the catalog: polls, publishes, activates."""

    def __init__(
        self,
        settings: Settings,
        environment: dict[str, str],
        logs: LogOptions,
        zygote: str | None = None,
    ) -> None:
        os.environ.update(environment)
        listen_on_own_address()
        reach_replicas_anew()
        report_who_waits()
        configure_logging(logs, *PACKAGES)
        self._settings = settings
        registry_uri = settings.registry_uri or settings.tracking_uri
        state, registry = Path(settings.state_dir), without_credentials(registry_uri)
        snapshots = SnapshotStore(state, registry=registry)
        restored = snapshots.load()
        self._history = HistoryFile(state)
        self._shadows = ShadowLedger(ShadowFile(state, registry=registry))
        here = serve.get_replica_context()
        self._ledger = HostLedger()
        self._load_problems = LoadProblems()
        self._canaries = CanaryWatch()
        models = ModelApplications(
            ModelApplicationSettings(
                tracking_uri=settings.tracking_uri,
                registry_uri=registry_uri,
                artifact_folder=str(settings.artifact_dir),
                environments=environment_settings(settings),
                idle_timeout_s=settings.idle_timeout_s,
                load_retry_s=settings.load_retry_s,
                load_timeout_s=settings.load_timeout_s,
                environment=tuple(sorted(environment.items())),
                events_to=(here.deployment, here.app_name),
                zygote=zygote,
                spare_worker=settings.spare_worker,
                shared_memory_bytes=settings.shared_memory_bytes,
                logs=logs,
            )
        )
        self._environments = EnvironmentPreparer(
            Planner(environment_settings(settings)),
            MlflowRegistry(tracking_uri=settings.tracking_uri, registry_uri=settings.registry_uri),
            KnownFiles(settings.needs_dir),
            max_bytes=settings.max_environments_bytes,
            changed=self._take_environments,
        )
        self._models = models
        self._placement = placement_by(settings)
        self._prepared_flavors: tuple[str, ...] = ()
        self._activator = Activator(
            RayApplications(),
            models.build,
            placement=self._placement,
            load_anew=self._load_anew,
            max_active_models=settings.max_active_models,
        )
        self._preparer = ReplicaVersionPreparer(
            self._activator,
            connect=partial(replica_handle, MODEL_HOST),
            wake_timeout_s=_START_TIMEOUT_S + settings.load_timeout_s,
            placement=self._placement,
            has_loaded=self._ledger.has_loaded,
        )
        self._loaded_ahead = LoadedAhead(
            self._preparer.load,
            self._ledger.has_loaded,
            is_running=self._activator.is_active,
            placement=self._placement,
            environment_problem=self._environments.problem,
        )
        self._synchronizer = Synchronizer(
            source=MlflowRegistry(
                tracking_uri=settings.tracking_uri,
                registry_uri=settings.registry_uri,
                patterns=NamePatterns(include=settings.include, exclude=settings.exclude),
                known=_known_versions(restored),
            ),
            snapshots=snapshots,
            policy=DefaultPolicy(
                champion_alias=settings.champion_alias,
                champion_stage=settings.champion_stage,
                rule=settings.default_version,
                warm=settings.warm,
                compatibility=settings.compatibility,
            ),
            history=self._history,
            preparer=self._preparer,
            environment_problem=self._environments.problem,
            restored=restored,
            # Without a snapshot, still above what readers may have from an earlier life of this.
            first_generation=int(time.time()),
            captures=settings.capture_url is not None,
            pins=_pins_of(settings),
        )
        # Generations of an earlier life may have told something else.
        self._life = uuid.uuid4().hex
        self._changed = asyncio.Event()
        self._adopted = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._tasks: tuple[asyncio.Task[None], ...] = (
            loop.create_task(self._poll()),
            loop.create_task(self._reconcile()),
            loop.create_task(self._load_ahead()),
            loop.create_task(self._shadows.keep_saved()),
        )
        if settings.spare_worker and settings.deployment == "own" and not environment:
            # Of this process' kind, and where models' replicas have an environment of their own
            # (on a cluster) they aren't: there the first replica has one started.
            self._tasks += (loop.create_task(have_spare_worker(_SPARE_AFTER_S)),)

    async def wait_for(
        self,
        known: Position,
        timeout_s: float,
        used: Collection[str] = (),
        environments: str = "",
    ) -> RegistryNews:
        """What is new for a reader of the catalog `known`, or after `timeout_s` that nothing is.

        `used` are the models that the reader had requests of since it last asked, `environments` is
        the stamp of what it knows of these.
        """
        self._activator.note_use(used)
        life, generation = known
        reached = generation if life == self._life else -1
        catalog = await self._synchronizer.wait_for(reached, timeout_s=timeout_s)
        update: CatalogUpdate | None = None
        if catalog is not None and catalog.generation != reached:
            names = self._synchronizer.changed_since(reached)
            update = packed(catalog, names, position=(self._life, catalog.generation))
        registry = self._synchronizer.registry
        news = RegistryNews(
            update=update,
            silent_for_s=registry.silent_for_s,
            problem=registry.problem,
            snapshot_problem=registry.snapshot_problem,
            warnings=self._activator.warnings,
            not_started=self._activator.not_started,
            load_problems={} if catalog is None else self._load_problems.told(catalog),
            environments_stamp=f"{self._life}/{self._environments.stamp}",
        )
        if news["environments_stamp"] != environments:
            news["environments"] = {
                name: {number: status.model_dump() for number, status in each.items()}
                for name, each in self._environments.statuses.items()
            }
        return news

    async def synchronize(self) -> SyncReport:
        """Look at the registry now, and let a default that moves take over if it loads quickly."""
        report = await self._look()
        await self._environments.settle(timeout_s=_SETTLE_S)
        generation = await self._synchronizer.settle(timeout_s=_SETTLE_S)
        return replace(report, generation=generation)

    async def _look(self) -> SyncReport:
        """Look at the registry, once it is known what is running: a default that moves is loaded
        there."""
        await self._adopted.wait()
        report = await self._synchronizer.synchronize()
        if self._synchronizer.catalog is not None:
            self._ledger.forget_all_but(self._synchronizer.catalog)
            self._shadows.forget_all_but(self._synchronizer.catalog)
            self._environments.look(self._synchronizer.catalog)
        self._changed.set()
        return report

    async def _take_environments(self) -> None:
        """What is known of the environments is another: that may decide which defaults move."""
        await self._synchronizer.reconsider()
        if self._synchronizer.catalog is not None:
            self._environments.look(self._synchronizer.catalog)
        self._changed.set()

    async def take_news(self, news: LoadEvents) -> None:
        """What a replica has to tell about versions of its models."""
        catalog = self._synchronizer.catalog
        for name, number, problem in self._ledger.take(news):
            model = None if catalog is None else catalog.models.get(name)
            version = None if model is None else model.version(number)
            if version is not None and problem is None:
                self._load_problems.note_load(name, version)
                self._synchronizer.note_loaded(version)
            elif version is not None and problem is not None:
                self._load_problems.note_failure(name, version, problem)

    async def note_trials(self, replica: str, counts: Counts) -> None:
        """What an ingress replica has counted of canaries; those that fail too often end."""
        catalog = self._synchronizer.catalog
        if catalog is not None:
            for each in self._canaries.take(replica, counts, catalog):
                await self._synchronizer.stop_canary(each.model, each.trial, each.why)

    async def history(self, name: str, limit: int) -> list[dict[str, Any]]:
        """The newest entries of a model's history, as plain values."""
        entries = await asyncio.to_thread(self._history.read, name, limit)
        return [entry.model_dump() for entry in entries]

    async def take_shadows(self, report: ShadowReport) -> bool:
        """What shadows came to in an ingress replica; whether it is taken."""
        return self._shadows.take(report, self._synchronizer.catalog)

    async def shadow(self, name: str) -> dict[str, Any] | None:
        """How the answers of a model's shadow compare, as plain values; None where nothing was
        compared."""
        figures = self._shadows.figures(name)
        return None if figures is None else figures.model_dump(mode="json")

    async def reading(self) -> Reading:
        """The numbers of all models' deployments and processes, and of their shadows."""
        return self._ledger.reading() | self._activator.reading() | self._shadows.reading()

    async def activate(self, name: str, number: int) -> tuple[str | None, str]:
        """Have the application that has that version running; its name, or None and why not."""
        await self._adopted.wait()
        catalog = self._synchronizer.catalog
        model = None if catalog is None else catalog.models.get(name)
        version = None if model is None else model.version(number)
        if model is None or version is None:
            return None, "The registry has no such version any more."
        try:
            return await self._activator.activate(model), ""
        except ActivationFailed as failed:
            return None, failed.reason

    async def _load_anew(self, model: ServedModel) -> None:
        """Have the default version loaded by the application that is to have the model from now on;
        raises ActivationFailed."""
        if model.default is None:
            return
        try:
            await self._preparer.prepare(model, model.default)
        except PreparationFailed as failed:
            raise ActivationFailed(f"{_NOT_MOVED} {failed}") from failed

    async def _poll(self) -> None:
        """Look for ever. While the registry is silent less and less often, so that one that comes
        back isn't met by all that wait for it at once."""
        pauses = Backoff(least_s=self._settings.poll_interval_s, most_s=_LONGEST_PAUSE_S)
        random, failures = Random(), 0  # noqa: S311 - no secret
        while True:
            failures = 0 if await self._has_answered() else failures + 1
            await asyncio.sleep(pauses.pause_s(failures, random))

    async def _has_answered(self) -> bool:
        """Whether a look at the registry went well."""
        with Attempt(_logger, "a look at the registry failed"):
            report = await self._look()
            return report.problem is None
        return False

    async def _reconcile(self) -> None:
        """Keep the applications true to the catalog, once it is known which are there."""
        await self._adopt()
        while True:
            await self._changed.wait()
            self._changed.clear()
            with Attempt(_logger, "the applications can't be brought in line with the catalog"):
                if self._synchronizer.catalog is not None:
                    self._activator.retain(self._synchronizer.catalog)
                    self._prepare_shared(self._synchronizer.catalog)

    async def _load_ahead(self) -> None:
        """Have what is to be there always in memory, soon after its replica is there."""
        await self._adopted.wait()
        while True:
            with Attempt(_logger, "it can't be told what is to be loaded ahead"):
                if self._synchronizer.catalog is not None:
                    self._loaded_ahead.look(self._synchronizer.catalog)
            await asyncio.sleep(_LOAD_AHEAD_LOOK_S)

    def _prepare_shared(self, catalog: Catalog) -> None:
        """Flavors that are new in the shared deployment are imported before they are asked for."""
        shared = self._placement.plans(catalog).get(SHARED)
        if shared is not None and shared.flavors != self._prepared_flavors:
            self._prepared_flavors = shared.flavors
            self._models.prepare(shared.flavors)

    async def _adopt(self) -> None:
        """Take over what an earlier sync service made, before anything is made or deleted: to make
        an application again would restart its replicas."""
        while not self._adopted.is_set():
            # Serve's controller may be restarting, too.
            with Attempt(_logger, "Serve doesn't tell which applications are there") as attempt:
                await self._activator.adopt()
                self._adopted.set()
            if attempt.has_failed:
                await asyncio.sleep(_ADOPT_AGAIN_S)


def _pins_of(settings: Settings) -> PinWriter | None:
    if not settings.pin_in_registry:
        return None
    return PinWriter(tracking_uri=settings.tracking_uri, registry_uri=settings.registry_uri)


def _known_versions(restored: Restored | None) -> list[ModelVersion]:
    models = () if restored is None else restored.catalog.models.values()
    return [version for model in models for version in model.versions]
