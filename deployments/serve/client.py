"""Serve's own client, which Ray 2.60 has no public name for: the one place that knows it.

`serve.status()` tells of all applications at once, and makes the configuration of each of their
deployments anew, which pickles a class (`RequestRouterConfig` in ray/serve/config.py): about 20 ms
of processor time for each model that is active, whenever somebody asks. What is asked for many
times a second is asked of the client, and so is what `serve.status()` doesn't tell. See
docs/11-ray-internals.md.
"""

from __future__ import annotations

from ray.serve._private.client import ServeControllerClient
from ray.serve.context import _get_global_client
from ray.serve.schema import ApplicationStatus


def serve_client() -> ServeControllerClient | None:
    """The client of the Serve that runs on the cluster that this process is connected to."""
    return _get_global_client(raise_if_no_controller_running=False)


def application_status(name: str) -> ApplicationStatus:
    """The status of the application, NOT_STARTED where there is none of that name; blocks."""
    client = serve_client()
    if client is None:
        return ApplicationStatus.NOT_STARTED
    status: ApplicationStatus = client.get_serve_status(name).app_status.status
    return status
