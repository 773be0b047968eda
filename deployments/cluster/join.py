"""Joining a Ray cluster that runs already, and reading what is on its Serve.

What has to hold there is in `deployments.cluster.join_rules`. Import it only where Ray may be
imported (see `deployments.cluster.launch`)."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray._private.services import canonicalize_bootstrap_address
from ray.serve.config import ProxyLocation
from ray.serve.schema import ApplicationDetails, ApplicationStatus, ServeInstanceDetails

from deployments.cluster.join_rules import (
    CannotJoin,
    RunningServe,
    ServeApplication,
    require_joinable,
)
from deployments.serve.client import serve_client

_KNOCK_S = 5.0


@contextmanager
def joined_ray(address: str) -> Iterator[None]:
    """Be connected to the Ray cluster at `address`; raises CannotJoin."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    require_joinable(address)
    _join(address)
    try:
        yield
    finally:
        ray.shutdown()


def _join(address: str) -> None:
    try:
        _knock(address)
        ray.init(address=address, logging_level=logging.ERROR)
    except (OSError, ValueError) as error:
        # Given an address, Ray uses a token only where it is told to (ray/_private/worker.py).
        raise CannotJoin(
            f"no Ray cluster answers at {address}; where it asks for a token, set "
            "RAY_AUTH_MODE=token. A gateway with a Ray of its own (`modelmux up` without "
            "--ray-address) is no cluster's: it ends with its command"
        ) from error


def _knock(address: str) -> None:
    """Find out at once that nobody listens there: Ray would go on trying for minutes.

    `auto` is any Ray of this machine, also one that was started by `modelmux up`: that listens on
    the loopback, and Ray asks for it at the machine's address.
    """
    found = canonicalize_bootstrap_address(address) or ""
    host, colon, port = found.rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


def running_serve() -> RunningServe | None:
    """What the cluster's Serve is like now; None where none runs.

    `serve.status` tells neither where Serve listens nor routes, and the dashboard, whose REST API
    does, isn't started everywhere. So this asks Serve's client. The details' form is public, but
    their HTTP options aren't used: for what nobody set they have another default than Serve itself.
    """
    client = serve_client()
    if client is None:
        return None
    details = ServeInstanceDetails(**client.get_serve_details())
    is_listening = details.proxy_location is not ProxyLocation.Disabled
    return RunningServe(
        host=client.http_config.host if is_listening else None,
        port=client.http_config.port,
        applications=tuple(_application(each) for each in details.applications.values()),
    )


def _application(details: ApplicationDetails) -> ServeApplication:
    config = details.deployed_app_config
    return ServeApplication(
        name=details.name,
        deployments=frozenset(details.deployments),
        route_prefix=details.route_prefix,
        import_path=None if config is None else config.import_path,
        is_ending=details.status == ApplicationStatus.DELETING,
    )
