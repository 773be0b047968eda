"""Creating and deleting the Serve applications of models.

A model's versions that ship no code share one application; a version that ships code has one of
its own, because two versions with a package of the same name can't share a process (MLflow puts
`code_paths` on `sys.path`, and the first one imported wins). Applications are made on the first
request, or at once where `modelmux.min_replicas` asks for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ray import cloudpickle, serve
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ApplicationStatus, LoggingConfig

import deployments.logs
import deployments.model_replica
import deployments.serve.replica_ports
from deployments.application_names import (
    MODEL_HOST,
    application_name,
    application_of,
    digest_of,
    is_models,
)
from deployments.logs import LogOptions
from deployments.model_replica.loader import HostSettings
from deployments.model_replica.replica import ModelHost
from deployments.serve.client import application_status
from deployments.sync.failed_starts import FailedStarts
from deployments.sync.idle_models import Idleness
from deployments.sync.reconciler import ActivationFailed, Adjustments, TakenBack
from gateway.catalog import Catalog, ModelOptions, ModelVersion, ServedModel

if TYPE_CHECKING:
    from deployments.model_replica.call_tracing import CallTracer

_logger = logging.getLogger(__name__)

_T = TypeVar("_T")

# More than any batcher keeps in flight: the bound on waiting work is the gateway's.
_MAX_ONGOING_REQUESTS = 256
# Most applications are up after a second or two; one that can't be placed is asked for minutes.
_FIRST_POLL_S, _POLL_GROWTH, _LONGEST_POLL_S = 0.05, 1.1, 0.5

HEALTH_CHECK_PERIOD_S = 2.0
"""How often Ray looks whether a replica is alive: until it has looked, one that was killed isn't
replaced (Ray's default is 10 s)."""

_NOT_FOLLOWED = "Its new tags can't be followed, so it runs by those before."

_QUIET = LoggingConfig(log_level="WARNING", enable_access_log=False)
_RESTORED = frozenset({ApplicationStatus.RUNNING, ApplicationStatus.DEPLOYING})

# The replica must not import any package of ours (see `deployments.model_replica.versions`).
_BY_VALUE = (deployments.logs, deployments.serve.replica_ports, deployments.model_replica)
for _module in _BY_VALUE:
    cloudpickle.register_pickle_by_value(_module)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationSettings:
    """What every model's application gets; times in seconds. `news_to` is the deployment and the
    application that hear what is loaded."""

    tracking_uri: str
    registry_uri: str
    artifact_folder: str
    record_folder: str
    idle_timeout_s: float
    load_retry_s: float
    load_timeout_s: float
    max_active_models: int | None = None
    start_timeout_s: float = 120.0
    environment: tuple[tuple[str, str], ...] = ()
    news_to: tuple[str, str] | None = None
    tracing: bool = False
    logs: LogOptions = field(default_factory=LogOptions)


class _Outdated(Exception):
    """Something else is wanted of an application by now than what it was deployed with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What an application should be: of that model, whose default version is in it or isn't."""

    model: ServedModel
    is_defaults: bool

    @property
    def keeps_replica(self) -> bool:
        """Whether a replica is to be there that nobody asked for."""
        return self.is_defaults and self.model.options.min_replicas > 0


class Activator:
    """Makes applications, one at a time per name, and knows which are there.

    Serve's own state is the truth: a sync service that restarts adopts what is running.
    """

    def __init__(self, settings: ActivationSettings) -> None:
        self._settings = settings
        self._active: dict[str, ModelOptions | None] = {}
        self._wanted: dict[str, _Wanted] = {}
        self._asked_for: set[str] = set()
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._failed_starts = FailedStarts()
        self._adjustments = Adjustments(self._adjust)
        self._idleness = Idleness()
        self._making_room = asyncio.Lock()
        self._promised: set[str] = set()
        self._one_at_a_time = asyncio.Lock()

    async def adopt(self) -> None:
        """Take over the applications that an earlier sync service made."""
        status = await self._ask_serve(serve.status)
        for name, application in status.applications.items():
            if application.status in _RESTORED and is_models(name, application.deployments):
                self._active[name] = None
                self._idleness.note_use([name])

    def is_active(self, model: ServedModel) -> bool:
        """Whether any application of that model is there."""
        prefix = application_name(model, _WITHOUT_CODE)
        return any(name == prefix or name.startswith(f"{prefix}-v") for name in self._active)

    async def activate(self, model: ServedModel, version: ModelVersion) -> str:
        """Have the application of that version running; its name. One that turns out to be gone
        is made again. Raises ActivationFailed."""
        name = application_name(model, version)
        if name in self._active and await self._is_gone(name):
            self._active.pop(name, None)
        if name in self._active:
            return name
        self._asked_for.add(name)
        if name not in self._starting:
            self._wanted[name] = _wanted(model, version)
        await self._started(name)
        return name

    async def _is_gone(self, name: str) -> bool:
        return await asyncio.to_thread(application_status, name) == ApplicationStatus.NOT_STARTED

    def note_use(self, models: Iterable[str]) -> None:
        """Models of these names are in use now."""
        self._idleness.note_use(map(application_of, models))

    @property
    def warnings(self) -> dict[str, list[str]]:
        """What keeps applications that run from being as they should, by their models' names."""
        told: dict[str, list[str]] = {}
        for name, problem in self._adjustments.problems().items():
            if name in self._wanted and name in self._active:
                told.setdefault(self._wanted[name].model.name, []).append(problem)
        return told

    @property
    def not_started(self) -> dict[str, str]:
        """Why models don't run of which something should, or should have: by their names, of the
        applications that answer by default."""
        problems = self._adjustments.problems()
        told: dict[str, str] = {}
        for name in problems.keys() | self._failed_starts.names:
            wanted = self._wanted.get(name)
            if wanted is not None and wanted.is_defaults and name not in self._active:
                failed = self._failed_starts.reason(name, _placement(wanted.model.options))
                reason = problems.get(name) or failed
                if reason is not None:
                    told[wanted.model.name] = reason
        return told

    def retain(self, catalog: Catalog) -> None:
        """Have the applications deleted of what the catalog has no more, those adjusted whose
        options changed, and those made that want a replica without being asked.

        Each is a task of its own, and nobody waits for them.
        """
        self._wanted = {
            application_name(model, version): _wanted(model, version)
            for model in catalog.models.values()
            for version in model.versions
        }
        self._failed_starts.retain(self._wanted.keys())
        for name in self._wanted.keys() | self._active.keys():
            if not self._is_in_line(name) or self._adjustments.is_going_on(name):
                self._adjustments.see_to(name, self._situation(name))

    def _is_in_line(self, name: str) -> bool:
        wanted = self._wanted.get(name)
        if name not in self._active:
            return wanted is None or not wanted.keeps_replica
        known = self._active[name]
        return wanted is not None and known is not None and known == wanted.model.options

    def _situation(self, name: str) -> object:
        """All that an adjustment goes by."""
        wanted = self._wanted.get(name)
        placement = None if wanted is None else _placement(wanted.model.options)
        return placement, wanted is not None and wanted.keeps_replica, name in self._active

    async def _adjust(self, name: str) -> None:
        """Bring one application in line with what is wanted; raises ActivationFailed."""
        wanted = self._wanted.get(name)
        if name not in self._active:
            if wanted is not None and wanted.keeps_replica:
                await self._started(name)
        elif wanted is None:
            await self._delete(name)
        else:
            known, options = self._active[name], wanted.model.options
            # An adopted one is left as it is until its options change.
            if known is None or _placement(known) == _placement(options):
                self._active[name] = options
            else:
                await self._redeploy(name, known)

    async def _redeploy(self, name: str, before: ModelOptions) -> None:
        """Change a running application; what can't be placed is taken back, so that a tag never
        takes down what was answering."""
        try:
            self._active[name] = await self._deploy_wanted(name)
        except ActivationFailed as failed:
            wanted = self._wanted.get(name)
            if wanted is None:
                return  # it is gone from the catalog meanwhile: the next adjustment deletes it
            await self._deploy(name, wanted.model.model_copy(update={"options": before}))
            raise TakenBack(f"{_NOT_FOLLOWED} {failed.reason}") from failed

    async def _started(self, name: str) -> None:
        """Wait until the application is made; a start that is going on is everybody's."""
        task = self._starting.get(name)
        if task is None:
            task = self._starting[name] = asyncio.create_task(self._start(name))
            task.add_done_callback(lambda _: self._starting.pop(name, None))
        await asyncio.shield(task)

    async def _start(self, name: str) -> None:
        try:
            await self._make_room(name)
            self._active[name] = await self._deployed(name)
            self._failed_starts.forget(name)
        finally:
            self._promised.discard(name)
            self._asked_for.discard(name)

    async def _deployed(self, name: str) -> ModelOptions:
        """See `_deploy_wanted`; what doesn't come up is deleted."""
        try:
            return await self._deploy_wanted(name)
        except ActivationFailed as failed:
            wanted = self._to_deploy(name)
            if wanted is not None:
                placement = _placement(wanted.model.options)
                self._failed_starts.note(name, placement, failed.reason)
            await self._delete(name)
            raise

    async def _make_room(self, name: str) -> None:
        """Have room for one more application, if need be by putting the one to sleep that is idle
        for the longest time; raises ActivationFailed."""
        most = self._settings.max_active_models
        async with self._making_room:
            while most is not None and len(self._active.keys() | self._promised) >= most:
                idle = self._idleness.longest_idle(self._active)
                if idle is None:
                    raise ActivationFailed("There is no room for one more model: none is idle.")
                _logger.info("application %s makes room for %s", idle, name)
                await self._delete(idle)
            self._promised.add(name)
        self._idleness.note_use([name])

    async def _deploy_wanted(self, name: str) -> ModelOptions:
        """Deploy the application as it is wanted, and again where that changes meanwhile; the
        options that it runs with. Raises ActivationFailed."""
        while (wanted := self._to_deploy(name)) is not None:
            try:
                await self._deploy(name, wanted.model, partial(self._wants, name, wanted))
            except _Outdated:
                continue
            return wanted.model.options
        raise ActivationFailed("It isn't wanted any more.")

    def _to_deploy(self, name: str) -> _Wanted | None:
        """What the application should be, None where it is gone from the catalog, or would be made
        for a tag that is gone."""
        wanted = self._wanted.get(name)
        there = name in self._active or name in self._asked_for
        return wanted if wanted is not None and (there or wanted.keeps_replica) else None

    def _wants(self, name: str, deployed: _Wanted) -> bool:
        wanted = self._to_deploy(name)
        placed = _placement(deployed.model.options)
        return wanted is not None and _placement(wanted.model.options) == placed

    async def _deploy(
        self, name: str, model: ServedModel, is_wanted: Callable[[], bool] = lambda: True
    ) -> None:
        started = time.perf_counter()
        await self._ask_serve(self._run, name, model)
        await self._wait_until_running(name, is_wanted)
        _logger.info("application %s is up after %.2f s", name, time.perf_counter() - started)

    def _run(self, name: str, model: ServedModel) -> None:
        target = serve.RunTarget(
            target=self._application(model), name=name, route_prefix=None, logging_config=_QUIET
        )
        serve.run_many([target], wait_for_applications_running=False)

    async def _ask_serve(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Call Serve in a thread, one call at a time.

        Whenever Ray 2.60 makes a deployment's configuration it registers a module with cloudpickle
        and takes that back (`_serialize_request_router_cls` in ray/serve/config.py): of two threads
        at once one fails.
        """
        async with self._one_at_a_time:
            return await asyncio.to_thread(function, *arguments)

    async def _wait_until_running(self, name: str, is_wanted: Callable[[], bool]) -> None:
        """Raises ActivationFailed, and _Outdated where what was deployed isn't wanted any more."""
        deadline = time.monotonic() + self._settings.start_timeout_s
        pause_s = _FIRST_POLL_S
        while time.monotonic() < deadline:
            status = await asyncio.to_thread(application_status, name)
            if status == ApplicationStatus.RUNNING:
                return
            if not is_wanted():
                raise _Outdated
            if status == ApplicationStatus.DEPLOY_FAILED:
                raise ActivationFailed("Its processes can't be started.")
            await asyncio.sleep(pause_s)
            pause_s = min(_LONGEST_POLL_S, pause_s * _POLL_GROWTH)
        raise ActivationFailed("There is no room to start its processes.")

    async def _delete(self, name: str) -> None:
        self._active.pop(name, None)
        try:
            await asyncio.to_thread(serve.delete, name)
        except TimeoutError:
            _logger.warning("application %s takes long to end", name)
        else:
            _logger.info("application %s is gone", name)

    def _application(self, model: ServedModel) -> serve.Application:
        options = model.options
        deployment = serve.deployment(
            name=MODEL_HOST,
            max_ongoing_requests=_MAX_ONGOING_REQUESTS,
            ray_actor_options=self._actor_options(options),
            autoscaling_config=AutoscalingConfig(
                min_replicas=options.min_replicas,
                initial_replicas=max(1, options.min_replicas),
                max_replicas=options.max_replicas,
                # One call at work and one on its way: the batcher sends no more to a replica.
                target_ongoing_requests=2,
                downscale_to_zero_delay_s=self._settings.idle_timeout_s,
            ),
            graceful_shutdown_timeout_s=20,
            graceful_shutdown_wait_loop_s=0.5,
            health_check_period_s=HEALTH_CHECK_PERIOD_S,
        )(ModelHost)
        return deployment.bind(self._host_settings(model))

    def _actor_options(self, options: ModelOptions) -> dict[str, object]:
        actor: dict[str, object] = {"num_cpus": options.num_cpus, "num_gpus": options.num_gpus}
        if self._settings.environment:
            actor["runtime_env"] = {"env_vars": dict(self._settings.environment)}
        return actor

    def _host_settings(self, model: ServedModel) -> HostSettings:
        return HostSettings(
            model=model.name,
            tracking_uri=self._settings.tracking_uri,
            registry_uri=self._settings.registry_uri,
            artifact_folder=self._settings.artifact_folder,
            record_folder=str(Path(self._settings.record_folder) / digest_of(model.name)),
            max_loaded_versions=model.options.max_loaded_versions,
            retry_load_after_s=self._settings.load_retry_s,
            load_timeout_s=self._settings.load_timeout_s,
            news_to=self._settings.news_to,
            make_tracer=_call_tracer() if self._settings.tracing else None,
            logs=self._settings.logs,
        )


def _call_tracer() -> type[CallTracer]:
    """Travels by value with all that it needs of ours."""
    from deployments.model_replica import (
        call_tracing,
        span_export,  # OpenTelemetry: only where tracing is on
    )

    for module in (call_tracing, span_export):
        cloudpickle.register_pickle_by_value(module)  # type: ignore[no-untyped-call]
    return call_tracing.CallTracer


def _placement(options: ModelOptions) -> dict[str, object]:
    """The options that an application is made with; the gateway reads the others per request."""
    return options.model_dump(exclude={"timeout_s", "batching"})


def _wanted(model: ServedModel, version: ModelVersion) -> _Wanted:
    default = model.default
    name = application_name(model, version)
    is_defaults = default is not None and application_name(model, default) == name
    return _Wanted(model=model, is_defaults=is_defaults)


_WITHOUT_CODE = ModelVersion(number=1, fingerprint="")
