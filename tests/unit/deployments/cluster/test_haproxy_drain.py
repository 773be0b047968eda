"""Telling HAProxy to take no more connections, by an admin socket that behaves like its own."""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.cluster.haproxy_drain import close_front_door

HEADER = "# pxname,svname,qcur,scur,"
IDLE = "stats,BACKEND,0,0,"


class AdminSocket:
    """Answers one command per connection; fewer requests are inside each time it is asked."""

    def __init__(self, path: Path, inside: int) -> None:
        self.path = path
        self.inside = inside
        self.commands: list[str] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self.commands.append(connection.makefile().readline().strip())
                connection.sendall(self._answer().encode())

    def _answer(self) -> str:
        if self.commands[-1] != "show stat":
            return "\n"
        self.inside = max(0, self.inside - 1)
        rows = (
            f"http-modelmux,replica,0,{self.inside},",
            f"http-modelmux,BACKEND,0,{self.inside},",
        )
        return "\n".join((HEADER, *rows, IDLE, "")) + "\n"


@pytest.fixture
def admin() -> Iterator[AdminSocket]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's are too long for a socket's name
        socket = AdminSocket(Path(folder) / "admin.sock", inside=3)
        yield socket
        socket.close()


def test_who_is_inside_is_waited_for(admin: AdminSocket) -> None:
    """The port is closed first; it ends when no backend has a request."""
    close_front_door(admin.path, timeout_s=30)
    assert admin.commands[0] == "disable frontend http_frontend; shutdown frontend http_frontend"
    assert admin.inside == 0
    assert set(admin.commands[1:]) == {"show stat"}


def test_the_wait_is_bounded(admin: AdminSocket) -> None:
    """Who doesn't come to an end is waited for no longer than that."""
    admin.inside = 10**9
    started = time.monotonic()
    close_front_door(admin.path, timeout_s=1.0)
    assert 1.0 <= time.monotonic() - started < 60
    assert admin.commands.count("show stat") > 1
    assert admin.inside > 0


def test_a_haproxy_that_does_not_listen_is_told_and_not_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Stopping goes on at once, and one line says what is wrong."""
    started = time.monotonic()
    close_front_door(tmp_path / "nobody", timeout_s=3600)
    assert time.monotonic() - started < 60
    (line,) = caplog.messages
    assert "No such file" in line
