"""Connections of the front door: `GatewayProtocol` with bounds on what strangers may keep.

uvicorn alone waits for ever for a head, for a body and for who doesn't read, and takes heads of any
size and any number of connections. What a proxy in front would bound is bounded here, by one look a
second at all connections, so that a request costs nothing for it. Must not import ray.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass

import httptools
from uvicorn.server import ServerState

from gateway.http.predict.direct.heads import Taken
from gateway.http.server.canned_responses import (
    head_too_large,
    late_head,
    malformed_request,
    no_more_connections,
)
from gateway.http.server.protocol import GatewayProtocol

# Of those beyond the limit: so many are told so, once they ask.
_MOST_REFUSED = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What connections may take: how many there may be, the bytes of a request's head, the seconds
    in which a head has to be there (and the first one from the connection on), and the seconds of
    silence in the middle of a body, between two requests, or of a caller who doesn't read."""

    most: int = 4096
    head_bytes: int = 16_384
    head_s: float = 10.0
    silence_s: float = 75.0


class Connections(ServerState):
    """The connections of one server, and whether it takes no more of them."""

    def __init__(self, limits: ConnectionLimits) -> None:
        super().__init__()
        self.limits = limits
        self.is_closing = False

    @property
    def ours(self) -> list[BoundedProtocol]:
        """Those that are there now."""
        return [each for each in self.connections if isinstance(each, BoundedProtocol)]

    @property
    def under_way(self) -> int:
        """How many of them have a request that isn't answered."""
        return sum(each.is_busy for each in self.ours)

    def close(self) -> None:
        """Have the next answer on each be its last."""
        self.is_closing = True
        for each in self.ours:
            if each.is_busy:
                each.cycle.keep_alive = False

    def look(self, now: float) -> None:
        """End those that keep the server waiting for longer than they may."""
        for each in self.ours:
            each.look(now)


class BoundedProtocol(GatewayProtocol):
    """One connection to the front door."""

    server_state: Connections

    _is_surplus = False
    _head_since: float | None = None
    _head_bytes = 0
    _body_head = b""
    _read = b""
    _heard_at = 0.0
    _unsent = 0
    _unsent_since = 0.0
    _refusal: Callable[[], bytes] = staticmethod(malformed_request)

    @property
    def is_busy(self) -> bool:
        """Whether a request has come that isn't answered."""
        return self._asked is not None or not (self.cycle is None or self.cycle.response_complete)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._heard_at = self.loop.time()
        surplus = len(self.connections) - self.server_state.limits.most
        if surplus > _MOST_REFUSED:
            transport.abort()
        elif surplus > 0:
            self._is_surplus = True

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._heard_at = self.loop.time()
        super().data_received(data)

    def parse(self, data: bytes) -> None:
        """See `GatewayProtocol.parse`."""
        is_in_head = self._head_since is not None
        if is_in_head or len(data) > self.server_state.limits.head_bytes:
            self._head_bytes += len(data)  # so much at most, and worth counting
        self._read = data
        super().parse(data)
        self._read = b""
        if self._head_since is None or not is_in_head:
            self._head_bytes = 0
        elif self._head_bytes > self.server_state.limits.head_bytes:
            self.refuse(head_too_large)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._head_since = self._heard_at

    def on_headers_complete(self) -> None:
        """A request's head is there."""
        if self._is_surplus:  # only now: a refusal of what isn't read is lost with the connection
            self._refusal = no_more_connections
            raise ValueError("one connection too many")
        if self._head_bytes:
            fields = sum(len(name) + len(value) + 4 for name, value in self.headers)
            if len(self.url) + fields > self.server_state.limits.head_bytes:
                self._refusal = head_too_large
                raise ValueError("a head of too many bytes")  # to the parser: it goes no further
        hosts = [name for name, _ in self.headers].count(b"host")
        if hosts != 1 and (hosts or self.parser.get_http_version() != "1.0"):
            raise ValueError("no host, or several (RFC 9112, section 3.2)")
        if b"#" in self.url:
            raise ValueError("a fragment, which is no part of a target (RFC 9112, section 3.2)")
        super().on_headers_complete()
        self._head_since = None  # only now: a head that is refused here is no request
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False
            self._body_head = self._head_of_body()
        if self.server_state.is_closing:
            self.cycle.keep_alive = False  # `connection: close`, uvicorn says then

    def on_message_complete(self) -> None:
        """All of it is there."""
        if self._body_head:
            return  # says a parser that looks for no body behind an upgrade
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what can't be read, or is too much."""
        self._asked = None
        self.refuse(self._refusal)

    def _unsupported_upgrade_warning(self) -> None:
        """uvicorn's word on an upgrade, which it says where the parser stops behind a head: the
        request's body, if it has one, is read all the same (Java's HTTP client sends bodies with an
        upgrade to HTTP/2), and the connection ends with its answer."""
        head, self._body_head = self._body_head, b""
        stopped = sys.exception()
        assert isinstance(stopped, httptools.HttpParserUpgrade)
        if head:
            self.parser = httptools.HttpRequestParser(_BodyOnly(self))
            self.parser.feed_data(head)
            super().parse(self._read[stopped.args[0] :])

    def _head_of_body(self) -> bytes:
        """The head of a request with such a body as this one's; nothing where it has none."""
        for name, value in self.headers:
            if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 \t")):
                return b"POST / HTTP/1.1\r\n%b: %b\r\n\r\n" % (name, value)
        return b""

    def refuse(self, refusal: Callable[[], bytes]) -> None:
        """Answer so, and close; where earlier requests are to be answered, the last of them is
        the last of all."""
        is_in_body = self._is_coming and self._head_since is None
        if is_in_body and self.pipeline:  # behind them
            self._is_coming = False
            self.pipeline.popleft()
            self.cycle = self.pipeline[0][0] if self.pipeline else self._under_way
        elif is_in_body or not self.is_busy:
            if not (self.is_busy and self.cycle.response_started):
                self.transport.write(refusal())
            self.transport.close()
            return
        self.cycle.keep_alive = False

    def look(self, now: float) -> None:
        """End the connection where it has kept the server waiting for too long."""
        limits = self.server_state.limits
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            if self._unsent:  # who goes on reading is there
                self._heard_at = now
            self._unsent, self._unsent_since = unsent, now
        elif now - self._unsent_since > limits.silence_s:
            self.transport.abort()
            return
        if self.transport.is_closing():
            return
        if self._head_since is not None:
            if now - self._head_since > limits.head_s and not self.is_busy:
                self.refuse(late_head)
        elif self._is_coming:
            if not self.flow.read_paused and now - self._heard_at > self._patience_s:
                self.transport.close()
        elif not self.is_busy and not unsent:
            # Who never asked gets no answer that could be taken for one to the next request.
            patience_s = limits.head_s if self.cycle is None else limits.silence_s
            if now - self._heard_at > patience_s:
                self.transport.close()

    @property
    def _patience_s(self) -> float:
        """With who sends a body: little where it is answered already."""
        limits = self.server_state.limits
        return limits.silence_s if self.is_busy else limits.head_s

    def _taken(self) -> Taken | None:
        return None if self.server_state.is_closing else super()._taken()

    def _begin_as_before(self, data: bytes) -> bool:
        if self._is_surplus or self.server_state.is_closing:
            return False
        is_begun = super()._begin_as_before(data)
        if is_begun:
            self._head_since = None
        return is_begun

    def on_response_complete(self) -> None:
        """An answer is sent. Here no timer waits for the next request: `look` does."""
        self._heard_at = self.loop.time()
        if self.pipeline:
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()


class _BodyOnly:
    """What a parser that begins with a request's body tells its connection: that body alone."""

    def __init__(self, connection: BoundedProtocol) -> None:
        self._connection = connection
        self._is_complete = False

    def on_body(self, body: bytes) -> None:
        """A piece is there."""
        if not self._is_complete:
            self._connection.on_body(body)

    def on_message_complete(self) -> None:
        """All of it is there."""
        if not self._is_complete:
            self._is_complete = True
            self._connection.on_message_complete()
