"""The end of HAProxy: it takes no more connections, and what it took is answered.

Without this HAProxy goes on listening while the ingress drains and when it is gone, and answers 503
to whoever comes. A caller who can't connect knows at once, and a load balancer tries elsewhere.

Speaks HAProxy's runtime API. The names of its sections are Ray's own
(ray/serve/_private/haproxy_templates.py; docs/11-ray-internals.md).
Must not import ray.
"""

from __future__ import annotations

import csv
import logging
import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

_logger = logging.getLogger(__name__)

# Disabled, the port is closed at once, but connections that are kept alive go on. Shut down, those
# end with their next answer, but the port stays open: HAProxy keeps it for a successor.
_CLOSE = "disable frontend http_frontend; shutdown frontend http_frontend"
_ANSWER_S = 5.0
_POLL_S = 0.05

# Whose connection is kept alive, and who is between two requests, has one more answer to get.
_QUIET_S = 0.5


def close_front_door(admin_socket: Path, *, timeout_s: float) -> None:
    """Take no more connections; returns when all requests have been answered and none has come for
    a moment, or after `timeout_s`.

    Whatever goes wrong is logged: the ingress drains by itself afterwards.
    """
    now = quiet_since = time.monotonic()
    deadline = now + timeout_s
    try:
        _ask(admin_socket, _CLOSE)
        while now - quiet_since < _QUIET_S and now < deadline:
            time.sleep(_POLL_S)
            now = time.monotonic()
            if _requests_inside(admin_socket):
                quiet_since = now
    except OSError as error:
        _logger.warning("HAProxy can't be told to take no more connections: %s", error.strerror)


def end_haproxy(admin_socket: Path) -> None:
    """End HAProxy at once, whose parent is gone with Ray's raylet: it would go on listening."""
    try:
        told = _ask(admin_socket, "show info").splitlines()
    except OSError:
        return  # it has ended
    for line in told:
        name, _, value = line.partition(":")
        if name == "Pid" and value.strip().isdecimal():
            with suppress(ProcessLookupError):
                os.kill(int(value), signal.SIGKILL)


def _requests_inside(admin_socket: Path) -> int:
    """How many requests are with a backend now."""
    answer = _ask(admin_socket, "show stat").removeprefix("# ")
    rows = csv.DictReader(answer.splitlines())
    return sum(int(row["scur"] or 0) for row in rows if row["svname"] == "BACKEND")


def _ask(admin_socket: Path, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_S)
        connection.connect(str(admin_socket))
        connection.sendall(f"{command}\n".encode())
        with connection.makefile(encoding="utf-8") as answer:
            return answer.read()
