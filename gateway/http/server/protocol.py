"""The HTTP server's protocol: uvicorn's, with what it has no options for.

- A small prediction that comes whole is answered without a task (`gateway.http.predict.direct`);
  for all else uvicorn makes its own.
- A request that can't be read is refused with a problem document, and a WebSocket's handshake taken
  for the plain request that it is, too (RFC 9110, section 7.8).
- An answer's head and body are one write (`write_coalescing`).
- Who speaks HTTP/1.0 gets no chunks.

What of uvicorn's it relies on is named in docs/11-ray-internals.md. Must not import ray.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.http.predict.direct.answer import DirectAnswer
from gateway.http.predict.direct.heads import Taken
from gateway.http.predict.direct.predictions import DirectPredictions
from gateway.http.server.canned_responses import malformed_request
from gateway.http.server.write_coalescing import JoinedWrites

_OK = b"HTTP/1.1 200 OK\r\n"


class DirectCycle:
    """A direct answer on its way, as uvicorn looks at a request's cycle."""

    def __init__(
        self, protocol: GatewayProtocol, scope: Scope, body: bytes, answer: DirectAnswer | None
    ) -> None:
        self.scope = scope
        self.body = body
        self.response_complete = False
        self.keep_alive = True
        self.message_event = _UNHEARD
        self._protocol = protocol
        self._answer = answer

    @property
    def disconnected(self) -> bool:
        """Whether the caller has hung up, or has been answered."""
        return self._answer is None

    @disconnected.setter
    def disconnected(self, value: bool) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.leave()

    def answer(self, head: bytes, body: bytes) -> None:
        """See `Ending`."""
        self._answer = None  # which knows this: no circle is left to the collector
        self._protocol.end_directly(self, head, body)

    def go_on(self, app: ASGIApp) -> None:
        """See `Ending`."""
        self._answer = None
        self._protocol.go_on(self, app)

    def begin_anew(self) -> None:
        """See `Ending`."""
        self._answer = None
        self._protocol.go_on(self, self._protocol.app, self.body)


class _Unheard:
    """In place of the event that tells an ASGI application of news: nobody waits for it."""

    def set(self) -> None:
        """See `asyncio.Event`."""


_UNHEARD = _Unheard()


class GatewayProtocol(HttpToolsProtocol):
    """uvicorn's protocol for one connection of the gateway's."""

    direct: ClassVar[DirectPredictions | None] = None
    """Who takes small predictions, once there is an ingress."""

    _defaults: ClassVar[object] = None
    _lines: ClassVar[bytes] = b""
    _asked: Taken | None = None
    _under_way: Any = None
    """The cycle, direct or uvicorn's, of the request that is being answered; others may be behind
    it."""

    _body: bytes = b""
    _data: bytes = b""  # what is being parsed, if a request begins with it
    _is_coming = False
    """Whether a request is on its way, its head or its body."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        self._joined = joined = JoinedWrites(transport)
        super().connection_made(joined)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`. uvicorn tells the last request that has come; one that is under
        way may be before it."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.disconnected = True
            under_way.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._is_coming or not self._begin_as_before(data):
            self.parse(data)

    def parse(self, data: bytes) -> None:
        """Have the parser read what has come."""
        self._data = b"" if self._is_coming else data
        super().data_received(data)
        self._data = b""
        if self._asked is not None:  # its body is still coming
            self._begin_ordinarily()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._is_coming = True

    def send_400_response(self, msg: str) -> None:
        """Refuse what can't be read."""
        self._asked = None
        self.transport.write(malformed_request())
        self.transport.close()

    def _should_upgrade(self) -> bool:
        return False

    def on_headers_complete(self) -> None:
        """A request's head is there."""
        self._asked = self._taken()
        self._body = b""
        if self._asked is None:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of its body is there."""
        if self._asked is None:
            super().on_body(body)
        else:
            self._body += body

    def on_message_complete(self) -> None:
        """All of it is there."""
        asked, self._asked = self._asked, None
        self._is_coming = False
        if asked is None:
            super().on_message_complete()
        else:
            assert self.direct is not None
            self.direct.heads.remember(self._data, self.url, self.headers, self._body, asked)
            self._begin_directly(asked)

    def _begin_as_before(self, data: bytes) -> bool:
        """Whether a request has come whose head was parsed before, on whatever connection; then it
        is begun."""
        direct, before = self.direct, self.cycle
        if (
            direct is None
            or (before is not None and not before.response_complete)
            or self.flow.write_paused
        ):
            return False
        known = direct.heads.known(data)
        if known is None:
            return False
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        self.on_message_begin()
        self._is_coming = False
        self.url = known.target
        self.headers += known.headers
        self._body = data[len(data) - known.length :]
        self._begin_directly(known.taken)
        return True

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._under_way = cycle
        if cycle.scope["http_version"] == "1.0":
            app = _until_closed(app, cycle)
        super()._start_asgi_task(cycle, app)

    def _taken(self) -> Taken | None:
        direct, parser = self.direct, self.parser
        if (
            direct is None
            or (self.cycle is not None and not self.cycle.response_complete)
            or parser.get_method() != b"POST"
            or parser.get_http_version() != "1.1"
            or not parser.should_keep_alive()
            or self.root_path
            or self.limit_concurrency is not None
            or self.flow.write_paused  # uvicorn's own wait until that is over
        ):
            return None
        return direct.heads.asked(self.url, self.headers)

    def _begin_ordinarily(self) -> None:
        self._asked = None
        super().on_headers_complete()
        if self._body:
            super().on_body(self._body)

    def _begin_directly(self, asked: Taken) -> None:
        assert self.direct is not None
        scope: Any = self.scope
        scope["method"], scope["path"] = "POST", asked.path
        scope["raw_path"], scope["query_string"] = self.url, b""
        answer = self.direct.begin(asked, scope, self._body)
        cycle: Any = DirectCycle(self, scope, self._body, answer)
        self.cycle = self._under_way = cycle
        if answer is None:
            cycle.begin_anew()
        else:
            answer.when_done(cycle)

    def end_directly(self, cycle: DirectCycle, head: bytes, body: bytes) -> None:
        """Write an answer; a connection that is to be closed is."""
        self._under_way = None
        lines = self._default_lines()
        last = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
        self._joined.write_whole(b"".join((_OK, lines, head, last, body)))
        cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def go_on(self, cycle: DirectCycle, app: ASGIApp, body: bytes = b"") -> None:
        """Have an application answer what has come whole; it gets such a body."""
        self._under_way = None
        made = RequestResponseCycle(
            scope=cast(Any, cycle.scope),
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=cycle.keep_alive,
            on_response=self.on_response_complete,
        )
        made.body = bytearray(body)
        made.more_body = False
        made.message_event.set()
        if self.cycle is cast(object, cycle):  # else another request has come behind it
            self.cycle = made
        self._start_asgi_task(made, app)

    def _default_lines(self) -> bytes:
        """uvicorn makes them anew each second, for the date."""
        headers = self.server_state.default_headers
        if headers is not GatewayProtocol._defaults:
            lines = (b"%b: %b\r\n" % header for header in headers)
            GatewayProtocol._defaults, GatewayProtocol._lines = headers, b"".join(lines)
        return GatewayProtocol._lines


def _until_closed(app: ASGIApp, cycle: RequestResponseCycle) -> ASGIApp:
    """Who speaks HTTP/1.0 knows no chunks, which uvicorn would send: the end of an answer without
    a length is that of its connection (RFC 9112, section 6.3)."""

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        is_measured = True

        async def unchunked(message: Message) -> None:
            nonlocal is_measured
            if message["type"] == "http.response.start":
                is_measured = any(
                    name == b"content-length" for name, _ in message.get("headers", ())
                )
                if not is_measured:
                    cycle.chunked_encoding = False
            elif not is_measured:
                cycle.expected_content_length += len(message.get("body", b""))
            await send(message)

        await app(scope, receive, unchunked)

    return answering
