"""A model that lost its replica for want of calls."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.support.harm import MODEL, processes_called
from tests.support.processes import gateway, poll
from tests.support.registering import columns, register

NUMBER = columns(("x", "double"))
PATIENCE_S = 120.0
SOON_S = 5.0
"""It takes one or two; Ray's router alone tells the controller of the request after 6 to 16."""

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux' /proc"),
    pytest.mark.alone,
]


def test_a_model_that_slept_answers_soon(mlflow_uri: str, tmp_path: Path) -> None:
    """The request that wakes it is told to Serve's controller at once, and each of two times."""
    name = "to zero"
    register(mlflow_uri, name, lambda rows, params: rows, NUMBER, NUMBER)
    options = ("--include", name)
    environment = {"MODELMUX_IDLE_TIMEOUT_S": "1"}
    with gateway(mlflow_uri, tmp_path, *options, environment=environment) as served:
        assert served.predict(name, {"x": 1}).status_code == 200
        for _ in range(2):
            poll(
                lambda: not processes_called(served, f"{MODEL}to-zero"),
                timeout_s=PATIENCE_S,
                what="its sleep",
            )
            began = time.monotonic()
            assert served.predict(name, {"x": 1}).status_code == 200
            assert time.monotonic() - began < SOON_S
