"""Calls by a replica's socket, on a real Ray: when they go there, what Ray still knows of them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest

from tests.support.processes import Gateway, gateway, poll
from tests.support.registering import client, columns, register

NUMBER = columns(("x", "double"))
WHERE = columns(("thread", "string"), ("process", "long"))
IDLE_S = 4.0
BY_SOCKET = "socket"


def where(rows: pd.DataFrame, params: Any) -> pd.DataFrame:
    """Which thread of which process answers."""
    import os
    import threading

    thread = threading.current_thread().name
    return pd.DataFrame({"thread": [thread] * len(rows), "process": [os.getpid()] * len(rows)})


@pytest.fixture(scope="module")
def served(mlflow_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway of its own, whose idle models go to sleep within seconds."""
    for _ in range(2):
        register(mlflow_uri, "where", where, NUMBER, WHERE)
    register(mlflow_uri, "where among several", where, NUMBER, WHERE)
    tag = client(mlflow_uri).set_registered_model_tag
    tag("where among several", "modelmux.max_replicas", "2")
    folder = tmp_path_factory.mktemp("socket-line")
    environment = {"MODELMUX_IDLE_TIMEOUT_S": str(IDLE_S)}
    options = ("--include", "where*", "--poll-interval-s", "2")
    with gateway(mlflow_uri, folder, *options, environment=environment) as running:
        yield running


def asked(served: Gateway, name: str = "where", **headers: str) -> dict[str, Any]:
    response = served.predict(name, {"x": 1}, **headers)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()[0]
    return answer


def until_by_socket(served: Gateway, **headers: str) -> int:
    """The process that answers, once it does so by its socket."""
    answer = poll(
        lambda: (found := asked(served, **headers))["thread"] == BY_SOCKET and found,
        what="an answer by the socket",
    )
    return int(answer["process"])


def test_the_first_call_goes_by_handle_and_later_ones_by_the_socket(served: Gateway) -> None:
    """Each version is asked by handle first, and in its own connection's thread from then on."""
    by_version = {number: until_by_socket(served, X_Model_Version=number) for number in "12"}
    assert len(set(by_version.values())) == 1


def test_among_several_replicas_ray_chooses(served: Gateway) -> None:
    """A model that may have more than one replica is asked by handle always."""
    threads = {asked(served, "where among several")["thread"] for _ in range(20)}
    assert BY_SOCKET not in threads


def test_a_model_that_is_asked_by_its_socket_is_not_idle(served: Gateway) -> None:
    """Ray keeps a replica whose calls it doesn't carry for as long as they come, and lets it go
    when they don't."""
    first = until_by_socket(served)
    until = time.monotonic() + 3 * IDLE_S
    while time.monotonic() < until:
        assert asked(served)["process"] == first
    poll(lambda: not _lives(first), timeout_s=150, what="the idle replica's end")
    assert asked(served)["process"] != first


def test_a_replica_that_dies_is_replaced_without_an_error(served: Gateway) -> None:
    """Callers of a replica that is killed wait for its successor; then the socket is used again."""
    first = until_by_socket(served)
    os.kill(first, signal.SIGKILL)
    assert asked(served)["process"] != first
    assert until_by_socket(served) != first


def test_a_replica_that_ray_replaces_is_left(served: Gateway, mlflow_uri: str) -> None:
    """Changing a tag that replicas are made with moves callers to the new one without an error."""
    first = until_by_socket(served)
    failed: list[str] = []
    stop = threading.Event()

    def keep_asking() -> None:
        while not stop.is_set():
            response = served.predict("where", {"x": 1})
            if response.status_code != 200:
                failed.append(response.text)

    callers = [threading.Thread(target=keep_asking) for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        client(mlflow_uri).set_registered_model_tag("where", "modelmux.max_loaded_versions", "2")
        poll(lambda: until_by_socket(served) != first, timeout_s=150, what="a new replica")
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    assert failed == []


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
