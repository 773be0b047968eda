"""A real HTTP proxy between a gateway and its MLflow server that does harm to chosen requests.

Only what a broken network or a server in trouble does: late answers, answers of 500, bodies that
stop half-way, connections that end without an answer. All else passes as it is.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Harm = Literal["delay", "error", "cut body", "hang up"]

_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length"}
_SERVER_TIMEOUT_S = 60.0


@dataclass
class FaultyProxy:
    """What is done to which requests: the first rule that says yes of `METHOD /path?query`."""

    url: str
    rules: list[tuple[Callable[[str], bool], Harm]] = field(default_factory=list)
    delay_s: float = 1.0
    harmed: int = 0
    _awake: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def harm(self, kind: Harm, *, where: Callable[[str], bool]) -> Iterator[None]:
        """Do that to the requests that `where` says yes of, while the block lasts."""
        self.harmed = 0
        self.rules.append((where, kind))
        try:
            yield
        finally:
            self.rules.clear()

    def harm_for(self, request: str) -> Harm | None:
        """What is to be done to that request."""
        for where, kind in self.rules:
            if where(request):
                self.harmed += 1
                return kind
        return None

    def delay(self) -> None:
        """Wait, unless the proxy is ending."""
        self._awake.wait(self.delay_s)

    def end_delays(self) -> None:
        """Let all who wait go."""
        self._awake.set()


@contextmanager
def faulty_proxy(upstream: str, *, port: int = 0) -> Iterator[FaultyProxy]:
    """A proxy of the server at `upstream`, on a port of its own or that one."""
    target = urlsplit(upstream)
    assert target.hostname is not None

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        proxy: FaultyProxy

        def _pass(self) -> None:
            harm = self.proxy.harm_for(f"{self.command} {self.path}")
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            if harm == "hang up":
                self.close_connection = True
            elif harm == "error":
                self._answer(500, [("Content-Type", "text/plain")], b"broken on purpose")
            else:
                if harm == "delay":
                    self.proxy.delay()
                try:
                    status, headers, answer = self._ask(body)
                except OSError:  # the server is away, and so are we
                    self.close_connection = True
                else:
                    self._answer(status, headers, answer, cut=harm == "cut body")

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _pass  # noqa: N815 - http.server's

        def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            upstream = http.client.HTTPConnection(
                str(target.hostname), target.port, timeout=_SERVER_TIMEOUT_S
            )
            try:
                headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP}
                upstream.request(self.command, self.path, body or None, headers)
                answer = upstream.getresponse()
                return answer.status, answer.getheaders(), answer.read()
            finally:
                upstream.close()

        def _answer(
            self, status: int, headers: list[tuple[str, str]], body: bytes, *, cut: bool = False
        ) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.close_connection = self.close_connection or cut

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    proxy = Handler.proxy = FaultyProxy(url=f"http://127.0.0.1:{server.server_port}")
    serving = threading.Thread(target=server.serve_forever, name="faulty proxy")
    serving.start()
    try:
        yield proxy
    finally:
        proxy.end_delays()
        server.shutdown()
        serving.join()
        server.server_close()
