"""The gateway's own Serve application, for `modelmux up` and for a Serve config.

`build` is what a config names: `serve deploy deploy/serve/modelmux.yaml`, or the `serveConfigV2` of
a KubeRay RayService. The applications of models aren't part of it: the sync service makes them
while it runs, and Serve's declarative API leaves alone what wasn't made by it
(docs/decisions/0028).
"""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from deployments.api_key_source import keys_of
from deployments.application_names import INGRESS, SYNC_SERVICE
from deployments.ingress import serve_middleware as request_front
from deployments.ingress.autoscaling import replicas_by_requests
from deployments.ingress.replica import Ingress
from deployments.logs import LogOptions
from deployments.mlflow_environment import registry_variables, set_registry_defaults
from deployments.settings import HEALTH_CHECK_PERIOD_S, BadSettings, Settings, read_settings
from deployments.sync.service import SyncService
from gateway.capture.files import CaptureUnusable, require_usable

_UPSCALE_DELAY_S = 5.0
# Replicas tell every 10 s, what they had meanwhile.
_LOOK_BACK_S = 15.0

# They say where a process of ours listens or joins; in a config Serve itself is told that.
_OF_THE_COMMAND_LINE = frozenset(
    {"host", "published_host", "port", "published_port", "ray_address"}
)


def build(arguments: dict[str, object]) -> serve.Application:
    """The application by a Serve config's `args`: settings by name, as in docs/4-settings.md.

    Variables of the cluster's environment count too; what is in `args` wins. Raises BadSettings.
    """
    misplaced = sorted(_OF_THE_COMMAND_LINE & arguments.keys())
    if misplaced:
        raise BadSettings(f"{', '.join(misplaced)}: the config's http_options say where to listen")
    settings = read_settings(arguments)
    if keys_of(settings) is None and not settings.insecure:
        raise BadSettings("set keys_file or keys, or insecure to let everybody in")
    _require_capture(settings)
    set_registry_defaults()
    logs = LogOptions(as_json=settings.log_format == "json")
    return gateway_application(settings, logs, environment=registry_variables())


def _require_capture(settings: Settings) -> None:
    try:
        require_usable(settings.capture_url)
    except CaptureUnusable as problem:
        raise BadSettings(f"capture_url: {problem}") from problem


def gateway_application(
    settings: Settings,
    logs: LogOptions,
    *,
    environment: dict[str, str],
    zygote: str | None = None,
    door: str | None = None,
) -> serve.Application:
    """Ingress and sync service; `environment` is what their processes, and those of models, must
    have of the variables that MLflow reads; `zygote` is the machine's, if it has one (see
    `deployments.cluster.zygote`), and `door` where the socket is lent that callers connect to, if
    no proxy is in front of the ingress (`deployments.cluster.front_door`)."""
    sync = serve.deployment(
        name=SYNC_SERVICE,
        num_replicas=1,
        max_ongoing_requests=10_000,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=2,
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
    )(SyncService).bind(settings, environment, logs, zygote)
    return serve.deployment(
        name=INGRESS,
        **_ingress_scale(settings),
        max_ongoing_requests=10_000,
        # For this deployment alone: others answer no requests of callers.
        ray_actor_options={
            "num_cpus": settings.ingress_num_cpus,
            "runtime_env": {"env_vars": request_front.ENVIRONMENT},
        },
        graceful_shutdown_timeout_s=settings.request_timeout_s,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
    )(Ingress).bind(settings, environment, logs, sync, door)


def _ingress_scale(settings: Settings) -> dict[str, Any]:
    """As many replicas as are set, or between two numbers by what is inside of them."""
    most = settings.ingress_max_replicas
    if most is None or most <= settings.ingress_replicas:
        return {"num_replicas": settings.ingress_replicas}
    policy = AutoscalingPolicy(policy_function=replicas_by_requests)  # type: ignore[no-untyped-call]
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=settings.ingress_replicas,
            max_replicas=most,
            target_ongoing_requests=settings.ingress_target_requests,
            policy=policy,
            upscale_delay_s=_UPSCALE_DELAY_S,
            look_back_period_s=_LOOK_BACK_S,
        )
    }
