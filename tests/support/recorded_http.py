"""Answers of a real server, kept in a file while a test that starts it runs, and given again
where there is no such server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

_TIMEOUT_S = 60.0


@dataclass
class Recording:
    """What was answered, by `METHOD /path?query` and body: status and text."""

    answers: dict[str, tuple[int, str]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Recording:
        """What `save` kept."""
        kept: dict[str, Any] = json.loads(path.read_text())
        return cls({asked: (status, text) for asked, (status, text) in kept.items()})

    def save(self, path: Path) -> None:
        """Keep it, in order."""
        path.write_text(json.dumps(self.answers, indent=1, sort_keys=True) + "\n")


@contextmanager
def recorded(server: str, recording: Recording) -> Iterator[str]:
    """A URL where `server` answers, and its answers are noted."""

    def answer(asked: str, method: str, path: str, body: bytes) -> tuple[int, str]:
        request = Request(f"{server}{path}", data=body or None, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urlopen(request, timeout=_TIMEOUT_S) as response:
                found = response.status, response.read().decode()
        except HTTPError as refused:
            found = refused.code, refused.read().decode()
        recording.answers[asked] = found
        return found

    with _listening(answer) as url:
        yield url


@contextmanager
def replayed(recording: Recording) -> Iterator[str]:
    """A URL where what was recorded is answered, and 404 to all else."""

    def answer(asked: str, _method: str, _path: str, _body: bytes) -> tuple[int, str]:
        return recording.answers.get(asked, (404, "nothing of the kind was recorded"))

    with _listening(answer) as url:
        yield url


@contextmanager
def _listening(answer: Any) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = f"{self.command} {self.path} {body.decode()}".rstrip()
            status, text = answer(asked, self.command, self.path, body)
            content = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def log_message(self, *arguments: object) -> None:
            """Nothing: the test's output is for what it finds."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
