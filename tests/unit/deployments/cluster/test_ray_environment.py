"""The environment for Ray, and what starts HAProxy."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import httpx
import pytest

from deployments.cluster.ray_environment import fast_path, has_haproxy, inner_host
from tests.support.processes import free_port, running, wait_for_http

BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
CONFIG = """\
frontend prometheus
    bind :9101
frontend http_frontend
    bind 127.0.0.1:8000
    default_backend default_backend
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path \\'%[path]\\' not found."
listen stats
  bind *:8404
  stats uri /stats
"""


@pytest.fixture
def haproxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A binary of the user's that prints what it was given and the configuration that it reads."""
    binary = tmp_path / "my haproxy"
    binary.write_text('#!/bin/sh\necho "$@"\ncat "$3"\n')
    binary.chmod(0o700)
    monkeypatch.setenv(BINARY, str(binary))
    return binary


@pytest.mark.parametrize(
    ("host", "bind"),
    [
        ("0.0.0.0", "0.0.0.0:8000"),
        ("127.0.0.1", "127.0.0.1:8000"),
        ("::1", "ipv6@::1:8000"),
        ("[::1]", "ipv6@::1:8000"),
        ("::", "ipv6@:::8000 v4v6"),
        ("gateway.example", "gateway.example:8000"),
    ],
)
def test_haproxy_has_its_front_door_at_the_host_and_the_rest_on_the_loopback(
    tmp_path: Path, haproxy: Path, host: str, bind: str
) -> None:
    """The launcher mends the configuration, also twice, and passes on its arguments as they are."""
    config = tmp_path / "haproxy.cfg"
    config.write_text(CONFIG)
    with fast_path(tmp_path, host=host, port=8000, proxied=True):
        command = [os.environ[BINARY], "-db", "-f", str(config), "-sf", "12"]
        assert inner_host(host) == "127.0.0.1"
        outputs = [subprocess.check_output(command, text=True) for _ in range(2)]
    expected = CONFIG.replace("bind :", "bind 127.0.0.1:").replace("*", "127.0.0.1")
    expected = expected.replace("127.0.0.1:8000", bind)
    expected = expected.replace('not found."', 'not found." if !{ path_beg / }')
    assert outputs == [f"-db -f {config} -sf 12\n{expected}"] * 2


def test_the_environment_is_as_it_was_afterwards(
    tmp_path: Path, haproxy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the user has set wins but for the binary, which is wrapped; nothing is left behind."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "mine")
    before = dict(os.environ)
    with fast_path(tmp_path, host="127.0.0.1", port=8000, proxied=True):
        assert os.environ["RAY_AUTH_MODE"] == "disabled"
        assert "RAY_AUTH_TOKEN" not in os.environ
        assert os.environ[BINARY] != str(haproxy)
    assert dict(os.environ) == before


def test_where_nothing_can_be_executed_haproxy_is_started_as_it_is(
    tmp_path: Path, haproxy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that is mounted noexec the launcher is of no use: the host is Serve's, then."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with fast_path(tmp_path, host="0.0.0.0", port=8000, proxied=True):
        assert os.environ[BINARY] == str(haproxy)
        assert inner_host("0.0.0.0") == "0.0.0.0"
    assert os.environ[BINARY] == str(haproxy)


def test_each_run_has_a_token_of_its_own(tmp_path: Path, haproxy: Path) -> None:
    """What was good for one gateway is nothing to another."""
    tokens = set()
    for _ in range(2):
        with fast_path(tmp_path, host="127.0.0.1", port=8000, proxied=True):
            tokens.add(os.environ["RAY_AUTH_TOKEN"])
    assert len(tokens) == 2
    assert all(len(token) == 64 for token in tokens)


def test_where_no_application_is_there_a_real_haproxy_says_to_try_again(tmp_path: Path) -> None:
    """Ray's template has a 404 in plain text for that; by our launcher it is 503 in the envelope,
    with Retry-After. Ray's own routes go on, and what is no path is still not found."""
    if not has_haproxy():
        pytest.skip("there is no HAProxy here")
    port = free_port()
    config = tmp_path / "haproxy.cfg"
    with fast_path(tmp_path, host="127.0.0.1", port=port, proxied=True):
        balance = os.environ["RAY_SERVE_HAPROXY_BALANCE_ALGORITHM"]
        defaults = "defaults\n    mode http\n    timeout client 5s\n    timeout server 5s\n"
        rest = CONFIG.partition("frontend http_frontend")[2].partition("listen stats")[0]
        rest = rest.replace(":8000", f":{port}")
        routes = "    http-request return status 200 if { path /-/routes }\n"
        rest = rest.replace("    default_backend", f"{routes}    default_backend", 1)
        front = f"frontend http_frontend{rest}"
        config.write_text(f"{defaults}    timeout connect 5s\n    balance {balance}\n{front}")
        command = [os.environ[BINARY], "-db", "-f", str(config)]
        with running(command, log=tmp_path / "log") as process:
            url = f"http://127.0.0.1:{port}"
            wait_for_http(f"{url}/-/routes", process, tmp_path / "log")
            refused = httpx.post(f"{url}/models/m/predict", json={})
            with httpx.Client() as client:
                no_path = client.request("OPTIONS", url, extensions={"target": b"*"})
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert refused.json()["code"] == "gateway_unavailable"
    assert no_path.status_code == 404


def test_where_no_proxy_is_in_front_none_is_started(tmp_path: Path, haproxy: Path) -> None:
    """Neither HAProxy nor Ray's own: the ingress has its callers to itself."""
    with fast_path(tmp_path, host="0.0.0.0", port=8000, proxied=False):
        assert "RAY_SERVE_ENABLE_HA_PROXY" not in os.environ
        assert os.environ["RAY_SERVE_ENABLE_DIRECT_INGRESS"] == "0"
        assert os.environ[BINARY] == str(haproxy)
    assert list(tmp_path.glob("modelmux-haproxy")) == []
