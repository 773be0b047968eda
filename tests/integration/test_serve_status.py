"""The one place that asks Serve's own client, which isn't public."""

from __future__ import annotations

import subprocess
import sys

_SCRIPT = """
import inspect
from ray.serve._private.application_state import ApplicationStatusInfo, StatusOverview
from ray.serve._private.client import ServeControllerClient
from ray.serve.schema import ApplicationStatus
from deployments.serve.client import application_status, serve_client

assert serve_client() is None
assert application_status("any") is ApplicationStatus.NOT_STARTED
asked = inspect.signature(ServeControllerClient.get_serve_status)
assert list(asked.parameters) == ["self", "name"], asked
assert asked.return_annotation is StatusOverview, asked
overview = StatusOverview(app_status=ApplicationStatusInfo(ApplicationStatus.RUNNING), name="any")
assert overview.app_status.status is ApplicationStatus.RUNNING
assert isinstance(ServeControllerClient.http_config, property)
assert callable(ServeControllerClient.get_serve_details)
"""


def test_serve_s_client_still_tells_what_is_asked_of_it() -> None:
    """What isn't public may move with any release of Ray; without a Serve there is no client."""
    # In a process of its own: unit tests that run in this one must not find ray imported.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _SCRIPT],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
