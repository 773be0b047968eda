"""Requests as bytes on a socket, and their answers: what no client library would send."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from urllib.parse import urlsplit

ANSWER_TIMEOUT_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One response."""

    status: int
    headers: dict[str, list[str]] = field(default_factory=dict)
    body: bytes = b""

    def header(self, name: str) -> str:
        """The value of a header that comes once; "" where it is absent."""
        values = self.headers.get(name.lower(), [])
        assert len(values) <= 1, (name, values)
        return values[0] if values else ""


class _Kept:
    """A socket for `HTTPResponse`, all of whose responses read from one buffered file."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rb")

    def makefile(self, mode: str) -> _Kept:
        return self

    def close(self) -> None:
        """Called at the end of each response; the next one goes on."""

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


def answers_to(
    url: str, sent: bytes, *, expected: int = 1, head: bool = False, complete: bool = False
) -> list[Answer]:
    """Send bytes on a new connection; up to `expected` answers, fewer where the server closes.

    With `complete` nothing more will come from this side, and the server is told so.
    """
    address = urlsplit(url)
    assert address.hostname is not None
    with socket.create_connection((address.hostname, address.port or 80), ANSWER_TIMEOUT_S) as line:
        with contextlib.suppress(OSError):  # it may have been refused before it was all sent
            line.sendall(sent)
            if complete:
                line.shutdown(socket.SHUT_WR)
        return list(_answers(line, expected, "HEAD" if head else "POST"))


def _answers(line: socket.socket, expected: int, method: str) -> Iterator[Answer]:
    kept = _Kept(line)
    for _ in range(expected):
        response = HTTPResponse(kept, method=method)  # type: ignore[arg-type]
        try:
            response.begin()
            body = response.read()
        except (HTTPException, ConnectionError):
            return
        headers: dict[str, list[str]] = {}
        for name, value in response.getheaders():
            headers.setdefault(name.lower(), []).append(value)
        yield Answer(status=response.status, headers=headers, body=body)


def request(
    *headers: bytes,
    method: bytes = b"POST",
    target: bytes = b"/models/versions/predict",
    body: bytes | None = b'{"x":1}',
    json: bool = True,
) -> bytes:
    """A request as bytes; `Content-Length` is added where there is a body."""
    lines = [method + b" " + target + b" HTTP/1.1", b"Host: gateway", *headers]
    if json and body is not None:
        lines.append(b"Content-Type: application/json")
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")
