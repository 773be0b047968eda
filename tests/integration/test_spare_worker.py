"""The process of Ray's that waits, with its imports done, for the next model that is woken."""

from __future__ import annotations

import sys

import pytest

from tests.support.harm import MODEL, processes_called
from tests.support.processes import Gateway, poll
from tests.support.registering import columns, register

NUMBER = columns(("x", "double"))
PATIENCE_S = 120.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux' /proc")


def test_a_process_waits_for_the_next_model_that_is_woken(
    mlflow_uri: str, impatient_gateway: Gateway
) -> None:
    """It is the replica of the model that is asked next, and another one waits then."""
    register(mlflow_uri, "own next", lambda rows, params: rows, NUMBER, NUMBER)
    impatient_gateway.sync()
    waiting = poll(lambda: _waiting(impatient_gateway), timeout_s=PATIENCE_S, what="one that waits")
    assert impatient_gateway.predict("own next", {"x": 1}).status_code == 200
    (replica,) = processes_called(impatient_gateway, f"{MODEL}own-next")
    assert replica in waiting
    poll(lambda: _waiting(impatient_gateway) - {replica}, timeout_s=PATIENCE_S, what="another one")


def _waiting(gateway: Gateway) -> set[int]:
    return {*processes_called(gateway, "ray::IDLE")}
