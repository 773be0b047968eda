"""Calls of a process past its replica, on a real Ray: when, and what Ray still knows of them."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from deployments.application_names import application_name
from tests.support.impatience import IDLE_S
from tests.support.processes import Gateway, poll
from tests.support.processes_of import command_of, processes_of
from tests.support.registering import client, columns, register

NUMBER = columns(("x", "double"))
WHERE = columns(("process", "long"), ("template", "long"))
NAME, SEVERAL = "own where", "own where, among several"


def where(rows: pd.DataFrame, params: Any) -> pd.DataFrame:
    """Which process answers, and which has started it."""
    import os

    return pd.DataFrame(
        {"process": [os.getpid()] * len(rows), "template": [os.getppid()] * len(rows)}
    )


@pytest.fixture(scope="module")
def served(mlflow_uri: str, impatient_gateway: Gateway) -> Gateway:
    """The gateway, whose idle models go to sleep within seconds, with two such models."""
    for _ in range(2):
        register(mlflow_uri, NAME, where, NUMBER, WHERE)
    register(mlflow_uri, SEVERAL, where, NUMBER, WHERE)
    client(mlflow_uri).set_registered_model_tag(SEVERAL, "modelmux.max_replicas", "2")
    impatient_gateway.sync()
    return impatient_gateway


def asked(served: Gateway, name: str = NAME, **headers: str) -> tuple[int, bool]:
    """The process that answers, and whether it was asked directly: there is no load to wait for."""
    response = served.predict(name, {"x": 1}, **headers)
    assert response.status_code == 200, response.text
    return response.json()[0]["process"], "load;" not in response.headers["Server-Timing"]


def until_direct(served: Gateway, **headers: str) -> int:
    """The process that answers, once it is asked directly."""
    process, _ = poll(
        lambda: (found := asked(served, **headers))[1] and found, what="a process asked directly"
    )
    return int(process)


def replicas(served: Gateway) -> list[int]:
    """The processes of the model's replicas."""
    title = f"ServeReplica:{application_name(NAME)}:"
    ours = processes_of(served.process.pid)
    return [process for process in ours if title in command_of(process)]


def test_the_first_call_goes_by_handle_and_later_ones_directly(served: Gateway) -> None:
    """Each version has a process of its own, of one template, which the zygote has made, under one
    replica."""
    by_version = {number: until_direct(served, X_Model_Version=number) for number in "12"}
    assert len(set(by_version.values())) == 2
    (template,) = set(map(_parent, by_version.values()))
    assert "zygote" in command_of(template)
    assert len(replicas(served)) == 1


def test_among_several_replicas_ray_chooses(served: Gateway) -> None:
    """A model that may have more than one replica is asked by handle always."""
    assert not any(asked(served, SEVERAL)[1] for _ in range(20))


def test_a_model_that_is_asked_directly_is_not_idle(served: Gateway) -> None:
    """Ray keeps a replica whose calls it doesn't carry for as long as they come, and lets it go
    when they don't."""
    first = until_direct(served)
    until = time.monotonic() + 3 * IDLE_S

    def answers_still() -> bool:
        assert asked(served)[0] == first
        return time.monotonic() > until

    poll(answers_still, what="the end of several times the idle timeout")
    poll(lambda: not _lives(first), timeout_s=150, what="the idle replica's end")
    assert asked(served)[0] != first


@pytest.mark.parametrize("killed", ["process", "template", "replica"])
def test_whatever_is_killed_is_replaced_without_an_error(served: Gateway, killed: str) -> None:
    """Callers wait for the successor, and nothing is left of what was below it."""
    first = until_direct(served)
    template, (replica,) = _parent(first), replicas(served)
    os.kill({"process": first, "template": template, "replica": replica}[killed], signal.SIGKILL)
    poll(lambda: asked(served)[0] != first, what=f"another process after a killed {killed}")
    assert until_direct(served) != first
    gone = {
        "process": [first],
        "template": [first, template],
        "replica": [first, template, replica],
    }
    for each in gone[killed]:
        poll(lambda each=each: not _lives(each), what=f"the end of a killed {killed}")  # type: ignore[misc]


def test_a_replica_that_ray_replaces_is_left(served: Gateway, mlflow_uri: str) -> None:
    """Changing a tag that replicas are made with moves callers to the new one without an error."""
    first = until_direct(served)
    failed: list[str] = []
    stop = threading.Event()

    def keep_asking() -> None:
        while not stop.is_set():
            response = served.predict(NAME, {"x": 1})
            if response.status_code != 200:
                failed.append(response.text)

    callers = [threading.Thread(target=keep_asking) for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        client(mlflow_uri).set_registered_model_tag(NAME, "modelmux.max_loaded_versions", "2")
        poll(lambda: until_direct(served) != first, timeout_s=150, what="a new replica")
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    assert failed == []


def _parent(process: int) -> int:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1])


def _lives(process: int) -> bool:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] != "Z"
