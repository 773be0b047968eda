"""The front door of a gateway with one ingress process: nothing is between that and its callers."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.harm import INGRESS, kill_one, processes_called
from tests.support.processes import Gateway, descendants_of, gateway, poll
from tests.support.registering import columns, register
from tests.support.up_output import not_ours

NAME = "behind the door"
NUMBER = columns(("x", "double"))

_log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def served(mlflow_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway of one model."""
    register(mlflow_uri, NAME, lambda rows, params: rows * 3, NUMBER, NUMBER)
    folder = tmp_path_factory.mktemp("gateway")
    with gateway(mlflow_uri, folder, "--include", NAME) as running:
        yield running


def test_no_proxy_runs(served: Gateway) -> None:
    """Neither HAProxy nor Serve's own."""
    assert processes_called(served, "haproxy") == processes_called(served, "ProxyActor") == []


def test_while_the_one_ingress_is_gone_callers_are_told_to_try_again(served: Gateway) -> None:
    """In the envelope, with Retry-After; no connection is refused, and the next ingress answers."""
    assert served.predict(NAME, {"x": 1}).json() == [{"x": 3.0}]
    refused = 0
    kill_one(served, INGRESS)

    def is_back() -> bool:
        nonlocal refused
        answer = httpx.post(f"{served.url}/models/{NAME}/predict", json={"x": 2}, timeout=60)
        if answer.status_code == 503:
            assert answer.json()["code"] in ("gateway_unavailable", "catalog_unavailable")
            assert answer.headers["Retry-After"]
            refused += 1
            return False
        assert answer.json() == [{"x": 6.0}]
        return True

    poll(is_back, timeout_s=60, what="an answer of the next ingress")
    _log.info("told to try again: %d times", refused)
    assert refused


def test_sigterm_answers_what_has_come(served: Gateway) -> None:
    """A request whose head is there is answered, though its body comes when the gateway is ending;
    nobody connects any more; exit code 0, no process left, nothing said but by the command and our
    loggers. The last one of this module: the gateway is gone."""
    where = urlsplit(served.url)
    address = (str(where.hostname), int(where.port or 0))
    path = NAME.replace(" ", "%20")
    head = (
        f"POST /models/{path}/predict HTTP/1.1\r\nHost: gateway\r\n"
        "Content-Type: application/json\r\nContent-Length: 7\r\n\r\n"
    )
    with socket.create_connection(address, 20) as asking:
        asking.sendall(head.encode())
        assert served.predict(NAME, {"x": 1}).status_code == 200  # the other one has been read
        served.process.send_signal(signal.SIGTERM)
        poll(lambda: not _connects(address), what="the door's end")
        asking.sendall(b'{"x":1}')
        answer = b""
        while chunk := asking.recv(65_536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer
    assert answer.endswith(b'[{"x":3.0}]')
    assert served.process.wait(60) == 0
    assert descendants_of(served.process.pid) == []
    output = served.log.read_text()
    assert not_ours(output) == []
    assert output.endswith("Stopped.\n")


def _connects(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, 5).close()
    except ConnectionRefusedError:
        return False
    return True
