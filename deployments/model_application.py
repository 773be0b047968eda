"""The Serve application of a model, or of those that share one: what is deployed, with which
settings.

The sync service makes them while it runs (`deployments.sync.activator`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ray import serve
from ray.serve.config import AutoscalingConfig

from deployments.application_names import MODEL_HOST
from deployments.environments.planner import EnvironmentSettings
from deployments.logs import LogOptions
from deployments.model_replica.host_settings import HostSettings
from deployments.model_replica.memory_budget import Sharing
from deployments.model_replica.processes import import_ahead
from deployments.model_replica.replica import ModelHost
from deployments.model_replica.start_methods import start_methods
from deployments.placement import ApplicationPlan
from deployments.settings import HEALTH_CHECK_PERIOD_S
from gateway.catalog import ModelOptions

# More than batchers keep in flight for a model: the bound on waiting work is the gateway's.
_MAX_ONGOING_REQUESTS = 256
# So many models may have calls that wait, as for a load, without holding up others.
_MAX_ONGOING_REQUESTS_SHARED = 10_000
# The memory budget says who goes, long before.
_MOST_SHARED_VERSIONS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelApplicationSettings:
    """What every model's application gets; times in seconds. `events_to` is the deployment and the
    application that hear what is loaded, `shared_memory_bytes` the budget of each shared replica.
    """

    tracking_uri: str
    registry_uri: str
    artifact_folder: str
    environments: EnvironmentSettings
    idle_timeout_s: float
    load_retry_s: float
    load_timeout_s: float
    environment: tuple[tuple[str, str], ...] = ()
    events_to: tuple[str, str] | None = None
    zygote: str | None = None
    spare_worker: bool = False
    shared_memory_bytes: int | None = None
    logs: LogOptions = field(default_factory=LogOptions)


class ModelApplications:
    """Builds the applications of models, all with the same settings."""

    def __init__(self, settings: ModelApplicationSettings) -> None:
        self._settings = settings

    def build(self, plan: ApplicationPlan) -> serve.Application:
        """The application of that plan; to be called by one thread at a time (see
        `deployments.serve.applications`)."""
        options, is_shared = plan.options, plan.is_shared
        # Meanwhile: the replica takes as long to start as the packages to be imported.
        self.prepare(plan.flavors)
        deployment = serve.deployment(
            name=MODEL_HOST,
            max_ongoing_requests=_MAX_ONGOING_REQUESTS_SHARED
            if is_shared
            else _MAX_ONGOING_REQUESTS,
            ray_actor_options=self._actor_options(options),
            autoscaling_config=AutoscalingConfig(
                min_replicas=options.min_replicas,
                initial_replicas=max(1, options.min_replicas),
                max_replicas=options.max_replicas,
                # All calls that may be at work, and one on its way: the batcher sends no more.
                target_ongoing_requests=plan.at_once + 1,
                downscale_to_zero_delay_s=self._settings.idle_timeout_s,
            ),
            graceful_shutdown_timeout_s=20,
            graceful_shutdown_wait_loop_s=0.5,
            health_check_period_s=HEALTH_CHECK_PERIOD_S,
        )(ModelHost)
        return deployment.bind(self._host_settings(plan))

    def prepare(self, flavors: Iterable[str]) -> None:
        """Have this machine's zygote import what versions of these flavors need; returns at
        once."""
        if self._settings.zygote is not None:
            for method in start_methods(flavors):
                import_ahead(self._settings.zygote, method)

    def _actor_options(self, options: ModelOptions) -> dict[str, object]:
        actor: dict[str, object] = {"num_cpus": options.num_cpus, "num_gpus": options.num_gpus}
        if self._settings.environment:
            actor["runtime_env"] = {"env_vars": dict(self._settings.environment)}
        return actor

    def _host_settings(self, plan: ApplicationPlan) -> HostSettings:
        sharing = Sharing(
            memory_bytes=self._settings.shared_memory_bytes,
            replicas=plan.options.max_replicas,
            idle_timeout_s=self._settings.idle_timeout_s,
        )
        return HostSettings(
            tracking_uri=self._settings.tracking_uri,
            registry_uri=self._settings.registry_uri,
            artifact_folder=self._settings.artifact_folder,
            max_loaded_versions=_MOST_SHARED_VERSIONS
            if plan.is_shared
            else plan.options.max_loaded_versions,
            sharing=sharing if plan.is_shared else None,
            environments=self._settings.environments,
            retry_load_after_s=self._settings.load_retry_s,
            load_timeout_s=self._settings.load_timeout_s,
            flavors=plan.flavors,
            events_to=self._settings.events_to,
            zygote=self._settings.zygote,
            spare_worker=self._settings.spare_worker and not plan.is_shared,
            logs=self._settings.logs,
        )
