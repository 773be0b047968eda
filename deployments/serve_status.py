"""How one Serve application is doing.

`serve.status()` tells of all applications at once, and makes the configuration of each of their
deployments anew, which pickles a class (`RequestRouterConfig` in ray/serve/config.py): about 20 ms
of processor time for each model that is active, whenever somebody asks. So what is asked for many
times a second asks Serve's own client, here only. It isn't public: a test of the same name
notices when it moves.
"""

from __future__ import annotations

from ray.serve.context import _get_global_client
from ray.serve.schema import ApplicationStatus


def application_status(name: str) -> ApplicationStatus:
    """The status of the application, NOT_STARTED where there is none of that name; blocks."""
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return ApplicationStatus.NOT_STARTED
    status: ApplicationStatus = client.get_serve_status(name).app_status.status
    return status
