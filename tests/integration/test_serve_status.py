"""The one thing that is asked of Serve's own client."""

from __future__ import annotations

import inspect

import pytest
from ray.serve._private.application_state import ApplicationStatusInfo, StatusOverview
from ray.serve._private.client import ServeControllerClient
from ray.serve.schema import ApplicationStatus

from deployments import serve_status
from deployments.serve_status import application_status


def test_the_client_still_tells_the_status_of_one_application() -> None:
    """What isn't public may move with any release of Ray."""
    told = inspect.signature(ServeControllerClient.get_serve_status)
    assert list(told.parameters) == ["self", "name"]
    assert told.return_annotation is StatusOverview


def test_the_status_is_the_application_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found where the client has it."""

    class Client:
        def get_serve_status(self, name: str) -> StatusOverview:
            info = ApplicationStatusInfo(ApplicationStatus.DEPLOYING, "", 0.0)
            return StatusOverview(app_status=info, name=name)

    monkeypatch.setattr(serve_status, "_get_global_client", lambda **_: Client())
    assert application_status("any") is ApplicationStatus.DEPLOYING


def test_without_serve_there_is_no_application(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Serve is started nothing is."""
    monkeypatch.setattr(serve_status, "_get_global_client", lambda **_: None)
    assert application_status("any") is ApplicationStatus.NOT_STARTED
