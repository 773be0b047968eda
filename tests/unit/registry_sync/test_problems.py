"""What keeps a registry from answering is told in sentences, and never with a secret."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import requests
from mlflow.exceptions import MlflowException

from registry_sync.problems import registry_problem
from registry_sync.records import RegistryUnreachable, RegistryUnusable
from registry_sync.source import MlflowRegistry

SECRET = "p4ss@word"  # pragma: allowlist secret - what is looked for in texts


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")


BODIES = {
    "login": b"<html>Sign in</html>",
    "list": b"[1, 2]",
    "other": b'{"hello": "world"}',
    "nothing": b"",
    "types": b'{"registered_models": [{"name": 5}]}',
}


@pytest.fixture(scope="module")
def odd_server() -> Iterator[str]:
    """A server that does what the first part of the path says: a status without JSON, 200 with one
    of `BODIES`, leading elsewhere, or breaking off."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            what = self.path.split("/")[1]
            if what == "broken":
                self.close_connection = True
            elif what == "other404":
                self.answer(404, b'{"detail": "Not Found"}')
            elif what == "gateway":
                self.answer(404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "/docs"}')
            elif what == "elsewhere":
                self.answer(302, b"", Location="http://login.invalid/oauth?secret=p4ss")
            elif what == "circle":
                self.answer(302, b"", Location=self.path)
            elif what in BODIES:
                self.answer(200, BODIES[what])
            else:
                self.answer(int(what), b"<html>hello</html>")

        def answer(self, status: int, content: bytes, **headers: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            for name, value in headers.items():
                self.send_header(name, value)
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


@pytest.mark.parametrize("what", [*BODIES, "other404", "405"])
def test_what_isnt_an_mlflow_server_is_told(odd_server: str, what: str) -> None:
    """Whatever it answers, it isn't taken for a registry in which there is nothing."""
    assert "isn't MLflow's registry" in str(problem_of(f"http://user:{SECRET}@{odd_server}/{what}"))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("elsewhere", "leads to login.invalid"),
        ("circle", "leads to itself without end"),
        ("gateway", "has no registry at this address"),
        ("broken", "breaks the connection off"),
    ],
)
def test_a_way_that_leads_nowhere_is_told(odd_server: str, what: str, said: str) -> None:
    """A redirect to another host, one to itself, and no answer at all are told by what they are."""
    assert said in str(problem_of(f"http://user:{SECRET}@{odd_server}/{what}"))


@pytest.mark.parametrize(
    ("uri", "asked"),
    [
        ("databricks", "https://workspace.example/api"),
        ("http://bücher.example", "http://xn--bcher-kva.example/api"),
        ("http://H.example", "http://h.example/api"),
    ],
)
def test_another_name_of_the_same_host_is_no_redirect(uri: str, asked: str) -> None:
    """A workspace has an address of its own, and a host's name several ways to be written."""
    error = requests.ConnectionError("no", request=requests.Request("GET", asked).prepare())
    assert "breaks the connection off" in str(registry_problem(error, uri))


def test_what_isnt_known_is_told_in_mlflows_words() -> None:
    """A kind that isn't known has the class and the first line of MLflow, and no credentials."""
    problem = registry_problem(MlflowException(f"of http://u:{SECRET}@h\nmore"), "databricks")
    assert str(problem) == (
        "The registry at databricks gives no usable answer (MlflowException): of http://***@h."
    )


@pytest.mark.parametrize("uri", ["sqlite:///{}/typo.db", "{}/typo", "file://{}/typo"])
def test_what_isnt_there_is_told_and_not_made(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow would make an empty database or folder, in which there are no models."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    registry = MlflowRegistry(tracking_uri=uri.format(tmp_path))
    for tried in (registry.require_usable, registry.read):
        with pytest.raises(RegistryUnusable, match="doesn't exist"):
            tried()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    """What the database's own library raises is a problem like any other, and may pass."""
    (tmp_path / "mlflow.db").write_text("no database " * 99)
    registry = MlflowRegistry(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    registry.require_usable()
    with pytest.raises(RegistryUnreachable, match="file is not a database"):
        registry.read()


def test_a_folder_of_files_says_what_to_do(tmp_path: Path) -> None:
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
