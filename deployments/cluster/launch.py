"""Bringing the gateway up on Ray, and taking it down again.

Of the gateway it knows the application that `deployments.application` makes, and nothing of what is
in there. Import it only inside `fast_path`, because Ray reads its environment when it is imported.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.schema import ApplicationStatus, LoggingConfig

from deployments.application import gateway_application
from deployments.application_names import APPLICATION, is_models
from deployments.cluster.front_door import FrontDoor
from deployments.cluster.gateway_owner import Owner, is_owner, owned_gateway
from deployments.cluster.haproxy_drain import close_front_door, end_haproxy
from deployments.cluster.join import joined_ray, running_serve
from deployments.cluster.join_rules import ServeApplication
from deployments.cluster.lean_ray import without_monitors
from deployments.cluster.ray_environment import haproxy_admin_socket, inner_host
from deployments.cluster.readiness import last_line, started
from deployments.cluster.zygote import zygote
from deployments.logs import LogOptions
from deployments.mlflow_environment import registry_variables, set_registry_defaults
from deployments.settings import Settings

_logger = logging.getLogger(__name__)

_OBJECT_STORE_BYTES = 512 * 1024 * 1024
_LOADING_POLL_S = 0.5

# How soon after the catalog the models that are to be there from the start begin to.
_SETTLE_S = 3.0
_STARTING = (ApplicationStatus.NOT_STARTED, ApplicationStatus.DEPLOYING)
_MINUTES_TO_END = 5

_NEEDED = frozenset({"gcs_server", "raylet"})

# Above what any setting or tag allows: deadlines are ours to keep, and to answer in our envelope.
_LONGEST_REQUEST_S = 3660.0

# Serve's own chatter is for Ray's developers; what a user should know, our loggers say.
_QUIET = LoggingConfig(log_level="WARNING", enable_access_log=False)


@contextmanager
def ray_runtime(settings: Settings) -> Iterator[None]:
    """Start a local Ray (or join the one at `ray_address`), and leave it as it was found.

    Raises CannotJoin.
    """
    set_registry_defaults()
    if settings.ray_address is not None:
        with joined_ray(settings.ray_address):
            yield
        return
    # The boundary to Ray's own start, which raises plain exceptions.
    context = started("Ray", _init_ray, failures=(Exception,), undo=ray.shutdown)
    sys.stdout.write(f"Ray's processes log to {context.address_info['session_dir']}/logs\n")
    try:
        yield
    finally:
        ray.shutdown()


def _init_ray() -> Any:
    with without_monitors():
        return ray.init(
            address="local",
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            # What its processes write is kept in a file of each, of which our own output names one.
            log_to_driver=False,
        )


def settings_on_cluster(settings: Settings) -> Settings:
    """The settings as they are on a cluster that was joined: where a Serve runs there already, it
    says where to listen. Raises CannotJoin."""
    found = running_serve()
    return settings if found is None else found.settings_here(settings)


Lost = Callable[[], str | None]
"""Why the gateway isn't this process's any more, in one line; None where it is."""


@contextmanager
def deployed(
    settings: Settings, logs: LogOptions, *, door: FrontDoor | None, take_over: bool = False
) -> Iterator[Lost]:
    """Deploy the gateway's application, whose callers come through `door` or else Serve's proxy; on
    the way out drain it and delete what is ours.

    Yields what tells whether it still is. Raises CannotJoin where the cluster has a gateway, which
    isn't to be taken over.
    """
    if settings.ray_address is None:
        _start_serve(settings, proxied=door is None)
        with zygote() as address:
            yield from _running(settings, logs, address, lambda: None, door)
        return
    there = running_serve()
    with owned_gateway(there, take_over=take_over) as owner:
        if there is None:
            _start_serve(settings, proxied=True)
        yield from _running(settings, logs, None, partial(_lost, owner))


def _lost(owner: Owner) -> str | None:
    return None if is_owner(owner) else "another `modelmux up` has taken the gateway over"


def _running(
    settings: Settings,
    logs: LogOptions,
    zygote: str | None,
    lost: Lost,
    door: FrontDoor | None = None,
) -> Iterator[Lost]:
    try:
        target = _gateway(settings, logs, zygote, door)
        serve.run_many([target], wait_for_applications_running=False)
        yield lost
    finally:
        if settings.ray_address is not None:
            if lost() is None:
                _take_down_shared()
        elif ended_ray_process() is None:
            _take_down_serve(settings, door)
        elif (admin_socket := haproxy_admin_socket()) is not None:
            end_haproxy(admin_socket)


def _start_serve(settings: Settings, *, proxied: bool) -> None:
    """Raises GatewayFailed. Where Serve's proxy wasn't there in time, Serve's controller starts
    another one, and what is called once more finds that controller."""
    location = ProxyLocation.EveryNode if proxied else ProxyLocation.Disabled
    options = HTTPOptions(
        host=settings.host if settings.ray_address else inner_host(settings.host),
        port=settings.port,
        request_timeout_s=_LONGEST_REQUEST_S,
    )
    start = partial(
        serve.start, proxy_location=location, http_options=options, logging_config=_QUIET
    )
    started("Ray Serve", start, failures=(TimeoutError, RayError), undo=lambda: None)


def _take_down_serve(settings: Settings, door: FrontDoor | None) -> None:
    """Serve itself is ours: answer what was accepted, then let it go as a whole."""
    admin_socket = haproxy_admin_socket()
    if door is not None:
        door.close(settings.request_timeout_s)
    elif admin_socket is not None:
        close_front_door(admin_socket, timeout_s=settings.request_timeout_s)
    else:
        serve.delete(APPLICATION)
    serve.shutdown()  # type: ignore[no-untyped-call]


def _take_down_shared() -> None:
    left = take_down_ours(is_gateway_ours=True).left
    if left:
        _logger.warning("still ending: %s", ", ".join(left))


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenDown:
    """Names of applications of ours: those that are gone, and those that still go on ending."""

    gone: tuple[str, ...]
    left: tuple[str, ...]


def take_down_ours(*, is_gateway_ours: bool = False) -> TakenDown:
    """Serve is shared: delete the ingress first, so that what was accepted is answered, then the
    models. `is_gateway_ours` where the caller has deployed it, so that what Serve has just begun
    with isn't left because it can't be told yet."""
    gateways = [
        each.name
        for each in _applications()
        # One that is ending is waited for, whosever it is: until it is gone it may make models.
        if each.is_gateways or (each.name == APPLICATION and (is_gateway_ours or each.is_ending))
    ]
    ended = {name: _delete(name) for name in gateways}
    # Asked only now: until here its sync service may have made some.
    models = [each.name for each in _applications() if each.is_models]
    with ThreadPoolExecutor(max_workers=8) as deleting:
        ended |= zip(models, deleting.map(_delete, models), strict=True)
    return TakenDown(
        gone=tuple(name for name, is_gone in ended.items() if is_gone),
        left=tuple(name for name, is_gone in ended.items() if not is_gone),
    )


def _applications() -> tuple[ServeApplication, ...]:
    found = running_serve()
    return () if found is None else found.applications


def _delete(name: str) -> bool:
    """Whether the application is gone; Serve itself waits a minute, and an ingress that has to
    answer may take longer."""
    for _ in range(_MINUTES_TO_END):
        try:
            serve.delete(name)
        except TimeoutError:
            continue
        return True
    return False


def ended_ray_process() -> str | None:
    """Which process of the Ray that is ours has ended by itself, of those that all others need;
    nobody starts it again (docs/11-ray-internals.md)."""
    node = ray._private.worker._global_node
    ended: list[tuple[str, object]] = [] if node is None else node.dead_processes()
    return next((kind for kind, _ in ended if kind in _NEEDED), None)


def deployment_failure() -> str | None:
    """Why Serve has given the gateway up, in one line; None where it hasn't."""
    ended = ended_ray_process()
    if ended is not None:
        return f"Ray's {ended} has ended"
    application = serve.status().applications.get(APPLICATION)
    if application is None or application.status != ApplicationStatus.DEPLOY_FAILED:
        return None
    failed = [
        each.message
        for each in application.deployments.values()
        if each.status.value == application.status.value
    ]
    return last_line(next(iter(failed), application.message))


def models_loading(*, stop: Event) -> Iterator[tuple[int, int]]:
    """How many models run, of those that have an application, for as long as some are starting."""
    settled_at = time.monotonic() + _SETTLE_S
    while not stop.is_set():
        ours = [
            application.status
            for name, application in serve.status().applications.items()
            if is_models(name, application.deployments)
        ]
        starting = sum(state in _STARTING for state in ours)
        if starting:
            yield len(ours) - starting, len(ours)
        elif time.monotonic() > settled_at:
            return
        stop.wait(_LOADING_POLL_S)


def _gateway(
    settings: Settings, logs: LogOptions, zygote: str | None, door: FrontDoor | None
) -> serve.RunTarget:
    environment = registry_variables() if settings.ray_address is not None else {}
    return serve.RunTarget(
        target=gateway_application(
            settings,
            logs,
            environment=environment,
            zygote=zygote,
            door=None if door is None else door.address,
        ),
        name=APPLICATION,
        route_prefix="/",
        logging_config=_QUIET,
    )
