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
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import orjson
from ray import serve
from ray.serve.exceptions import DeploymentUnavailableError

from deployments.application_names import MODEL_HOST
from deployments.backoff import Backoff
from deployments.catalog_updates import CatalogUpdate, Position, RegistryNews, packed
from deployments.logs import PACKAGES, LogOptions, configure_logging
from deployments.model_calls.backend import VersionHandle
from deployments.model_calls.lost_calls import HANDLE_ERRORS
from deployments.model_calls.outcomes import Outcome, plain_call
from deployments.model_replica.load_events import HostNews
from deployments.serve.replica_ports import listen_on_own_address
from deployments.settings import Settings
from deployments.sync.activator import ActivationSettings, Activator
from deployments.sync.load_metrics import HostLedger
from deployments.sync.load_outcomes import why_not_loaded
from deployments.sync.load_problems import LoadProblems
from deployments.sync.reconciler import ActivationFailed
from gateway.catalog import ModelVersion, ServedModel, contract_of
from gateway.contract import Contract, Frame
from gateway.errors import GatewayError
from gateway.metrics.families import Reading
from gateway.ports import SyncReport
from registry_sync.default_version import DefaultPolicy
from registry_sync.snapshot import Restored, SnapshotStore
from registry_sync.source import MlflowRegistry, NamePatterns, without_credentials
from registry_sync.synchronizer import PreparationFailed, Synchronizer

_logger = logging.getLogger(__name__)

_START_TIMEOUT_S = 120.0
_ASK_LOAD_TIMEOUT_S = 60.0
_ASK_TIMEOUT_S = 3600.0
_SETTLE_S = 10.0
_LONGEST_PAUSE_S = 60.0
_ADOPT_AGAIN_S = 0.5


class RayVersionPreparer:
    """Loads a version in every replica of its model, or in one that it wakes, and asks it once,
    before it takes over."""

    def __init__(self, activator: Activator, *, wake_timeout_s: float) -> None:
        self._activator = activator
        self._wake_timeout_s = wake_timeout_s

    def is_active(self, model: ServedModel) -> bool:
        """See `VersionPreparer.is_active`."""
        return self._activator.is_active(model)

    async def prepare(self, model: ServedModel, version: ModelVersion) -> None:
        """See `VersionPreparer.prepare`."""
        try:
            application = await self._activator.activate(model, version)
            handle = serve.get_deployment_handle(MODEL_HOST, application)
            for outcome in await self._loads(handle, version):
                _require_loaded(outcome)
            await self._ask_once(handle, model, version)
        except ActivationFailed as failed:
            raise PreparationFailed(failed.reason) from failed
        except TimeoutError as error:
            raise PreparationFailed("No process of its model starts to load it.") from error
        except HANDLE_ERRORS as error:
            raise PreparationFailed("Its process went away while it was loaded.") from error

    async def _loads(self, handle: Any, version: ModelVersion) -> list[Outcome]:
        """What came of loading the version in each replica."""
        which = (version.number, version.fingerprint)
        with suppress(DeploymentUnavailableError):
            everywhere: list[Outcome] = await handle.broadcast("load", *which).results_async()
            return everywhere
        # No replica is there, or the handle knows of none yet. A call of one wakes it.
        async with asyncio.timeout(self._wake_timeout_s):
            await handle.load.remote(*which)
        woken: list[Outcome] = await handle.broadcast("load", *which).results_async()
        return woken

    async def _ask_once(self, handle: Any, model: ServedModel, version: ModelVersion) -> None:
        """The first call of a model is often slow: have it behind us. An input example that came
        with the version must be answered; a made-up one, or tensors of zeros, may not suit the
        model."""
        own = model.model_copy(
            update={"contract": version.signature, "default_version": version.number}
        )
        question = _question(contract_of(version.signature or ""), own.request_example())
        if question is None:
            return
        frame, params = question
        call = plain_call(
            version,
            frame,
            params,
            give_up_at=time.monotonic() + _ASK_TIMEOUT_S,
            patience_s=_ASK_TIMEOUT_S,
        )
        outcome = await VersionHandle(handle, version).predict(
            call, load_timeout_s=_ASK_LOAD_TIMEOUT_S
        )
        _require_loaded(outcome)
        if outcome[0] != "ok" and version.example is not None:
            raise PreparationFailed("It fails on its own input example.")


def _require_loaded(outcome: Outcome) -> None:
    reason = why_not_loaded(outcome)
    if reason is not None:
        raise PreparationFailed(reason)


def _question(contract: Contract, example: Any) -> tuple[Frame, Mapping[str, Any]] | None:
    """What a version is asked first; None where nothing can be made up."""
    try:
        if example is None:
            zeros = contract.zeros()
            params = contract.parse(b"[]").params
            return None if zeros is None else (zeros, params)
        request = contract.parse(orjson.dumps(example))
    except GatewayError:
        return None
    return next(((frame, request.params) for _, frame in request.frames), None)


class SyncService:
    """The one owner of the catalog: polls, publishes, activates."""

    def __init__(self, settings: Settings, environment: dict[str, str], logs: LogOptions) -> None:
        os.environ.update(environment)
        listen_on_own_address()
        configure_logging(logs, *PACKAGES)
        self._settings = settings
        registry_uri = settings.registry_uri or settings.tracking_uri
        snapshots = SnapshotStore(
            Path(settings.state_dir), registry=without_credentials(registry_uri)
        )
        restored = snapshots.load()
        here = serve.get_replica_context()
        self._ledger = HostLedger()
        self._load_problems = LoadProblems()
        self._activator = Activator(
            ActivationSettings(
                tracking_uri=settings.tracking_uri,
                registry_uri=registry_uri,
                artifact_folder=str(settings.artifact_dir),
                record_folder=str(settings.record_dir),
                idle_timeout_s=settings.idle_timeout_s,
                load_retry_s=settings.load_retry_s,
                load_timeout_s=settings.load_timeout_s,
                max_active_models=settings.max_active_models,
                environment=tuple(sorted(environment.items())),
                news_to=(here.deployment, here.app_name),
                tracing=settings.tracing,
                logs=logs,
            )
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
                champion_alias=settings.champion_alias, compatibility=settings.compatibility
            ),
            preparer=RayVersionPreparer(
                self._activator, wake_timeout_s=_START_TIMEOUT_S + settings.load_timeout_s
            ),
            restored=restored,
            # Without a snapshot, still above what readers may have from an earlier life of this.
            first_generation=int(time.time()),
        )
        # Generations of an earlier life may have told something else.
        self._life = uuid.uuid4().hex
        self._changed = asyncio.Event()
        self._adopted = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._tasks = (loop.create_task(self._poll()), loop.create_task(self._reconcile()))

    async def wait_for(
        self, known: Position, timeout_s: float, used: Collection[str] = ()
    ) -> RegistryNews:
        """What is new for a reader of the catalog `known`, or after `timeout_s` that nothing is.

        `used` are the models that the reader had requests of since it last asked.
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
        return RegistryNews(
            update=update,
            silent_for_s=registry.silent_for_s,
            problem=registry.problem,
            snapshot_problem=registry.snapshot_problem,
            warnings=self._activator.warnings,
            not_started=self._activator.not_started,
            load_problems={} if catalog is None else self._load_problems.told(catalog),
        )

    async def synchronize(self) -> SyncReport:
        """Look at the registry now, and let a default that moves take over if it loads quickly."""
        report = await self._look()
        generation = await self._synchronizer.settle(timeout_s=_SETTLE_S)
        return replace(report, generation=generation)

    async def _look(self) -> SyncReport:
        """Look at the registry, once it is known what is running: a default that moves is loaded
        there."""
        await self._adopted.wait()
        report = await self._synchronizer.synchronize()
        if self._synchronizer.catalog is not None:
            self._ledger.forget_all_but(self._synchronizer.catalog)
        self._changed.set()
        return report

    async def take_news(self, news: HostNews) -> None:
        """What a model's process has to tell about its versions."""
        name, catalog = news["model"], self._synchronizer.catalog
        model = None if catalog is None else catalog.models.get(name)
        for number, problem in self._ledger.take(news):
            version = None if model is None else model.version(number)
            if version is not None and problem is None:
                self._load_problems.note_load(name, version)
                self._synchronizer.note_loaded(version)
            elif version is not None and problem is not None:
                self._load_problems.note_failure(name, version, problem)

    async def reading(self) -> Reading:
        """The numbers of all models' processes."""
        return self._ledger.reading()

    async def activate(self, name: str, number: int) -> str | None:
        """Have the application of that version running; why that failed, None where it didn't."""
        await self._adopted.wait()
        catalog = self._synchronizer.catalog
        model = None if catalog is None else catalog.models.get(name)
        version = None if model is None else model.version(number)
        if model is None or version is None:
            return "The registry has no such version any more."
        try:
            await self._activator.activate(model, version)
        except ActivationFailed as failed:
            return failed.reason
        return None

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
        try:
            report = await self._look()
        # A boundary: whatever goes wrong in one round, the next one must come.
        except Exception:
            _logger.exception("a look at the registry failed")
            return False
        return report.problem is None

    async def _reconcile(self) -> None:
        """Keep the applications true to the catalog, once it is known which are there."""
        await self._adopt()
        while True:
            await self._changed.wait()
            self._changed.clear()
            # A boundary: whatever goes wrong in one round, the next one must come.
            try:
                if self._synchronizer.catalog is not None:
                    self._activator.retain(self._synchronizer.catalog)
            except Exception:
                _logger.exception("the applications can't be brought in line with the catalog")

    async def _adopt(self) -> None:
        """Take over what an earlier sync service made, before anything is made or deleted: to make
        an application again would restart its replicas."""
        while not self._adopted.is_set():
            # A boundary: Serve's controller may be restarting, too.
            try:
                await self._activator.adopt()
                self._adopted.set()
            except Exception:
                _logger.exception("Serve doesn't tell which applications are there")
                await asyncio.sleep(_ADOPT_AGAIN_S)


def _known_versions(restored: Restored | None) -> list[ModelVersion]:
    models = () if restored is None else restored.catalog.models.values()
    return [version for model in models for version in model.versions]
