"""What keeps a registry from answering is told in sentences, and never with a secret."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from registry_sync.records import RegistryUnreachable, RegistryUnusable
from registry_sync.source import MlflowRegistry

SECRET = "p4ss@word"  # pragma: allowlist secret - what is looked for in texts


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")


@pytest.fixture(scope="module")
def odd_server() -> Iterator[str]:
    """A server that answers with the status that the first part of the path is, and no JSON."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = b"<html>hello</html>"
            self.send_response(int(self.path.split("/")[1]))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def problem_of(uri: str) -> RegistryUnreachable:
    with pytest.raises(RegistryUnreachable) as caught:
        MlflowRegistry(tracking_uri=uri).read()
    assert "p4ss" not in str(caught.value)
    assert "Exception" not in str(caught.value).partition(":")[0]
    return caught.value


def test_a_server_that_isnt_there_is_told_with_its_address() -> None:
    """Nobody listens: the sentence has the address and no credentials, and waiting may help."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        problem = problem_of(f"http://user:{SECRET}@127.0.0.1:{port}")
    assert str(problem).startswith(f"Nobody listens at http://127.0.0.1:{port}:")
    assert not isinstance(problem, RegistryUnusable)


def test_a_host_that_nobody_knows_is_told() -> None:
    """What came of the network is told by what it was."""
    assert "known to nobody" in str(problem_of("http://nosuchhost.invalid:5000"))


def test_a_server_that_speaks_no_tls_is_told(odd_server: str) -> None:
    """https where there is http is a matter of TLS."""
    assert "No TLS connection" in str(problem_of(f"https://{odd_server}"))


def test_a_server_that_is_silent_is_told() -> None:
    """An answer that doesn't come in time is told with the variable that says how long."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        problem = problem_of(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" in str(problem)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "MLFLOW_TRACKING_USERNAME"),
        (403, "permission READ"),
        (404, "has no registry at this address"),
        (500, "errors of its own"),
    ],
)
def test_what_a_server_refuses_is_told(odd_server: str, status: int, said: str) -> None:
    """Each status that a server may refuse with says what to do about it."""
    assert said in str(problem_of(f"http://user:{SECRET}@{odd_server}/{status}"))


def test_what_isnt_known_is_told_in_mlflows_words(odd_server: str) -> None:
    """A kind that isn't known has the class and the first line of MLflow, and no credentials."""
    with pytest.raises(RegistryUnreachable) as caught:
        MlflowRegistry(tracking_uri=f"http://user:{SECRET}@{odd_server}/200").read()
    assert "not in a valid JSON format" in str(caught.value)
    assert "p4ss" not in str(caught.value)


def test_a_folder_of_files_says_what_to_do(tmp_path: str) -> None:
    """What MLflow reads no more is told with the two ways out, and doesn't get better."""
    problem = problem_of(f"{tmp_path}/mlruns")
    assert isinstance(problem, RegistryUnusable)
    assert "migrate-filestore" in str(problem)
    with pytest.raises(RegistryUnusable):
        MlflowRegistry(tracking_uri=f"{tmp_path}/mlruns").require_usable()


def test_a_driver_that_isnt_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database whose driver is missing says which package to install."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    problem = problem_of(f"postgresql+psycopg2://user:{SECRET}@127.0.0.1:1/db")
    assert isinstance(problem, RegistryUnusable)
    assert "pip install psycopg2-binary" in str(problem)
