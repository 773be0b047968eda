"""Connections of the front door, over transports in memory: what strangers may keep."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from uvicorn import Config

from gateway.http.server.bounded_protocol import (
    _MOST_REFUSED,
    BoundedProtocol,
    ConnectionLimits,
    Connections,
)

LIMITS = ConnectionLimits(most=3, head_bytes=1000, head_s=10.0, silence_s=75.0)
HEAD = b"POST /a HTTP/1.1\r\nHost: gateway\r\n"
WHOLE = HEAD + b"Content-Length: 2\r\n\r\nab"


class Transport(asyncio.Transport):
    """The caller's end, which reads as much as is told."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.unsent = 0
        self.end = ""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 4711) if name == "peername" else default

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return bool(self.end)

    def close(self) -> None:
        self.end = self.end or "closed"

    def abort(self) -> None:
        self.end = "aborted"

    def resume_reading(self) -> None: ...

    def pause_reading(self) -> None: ...


class Server:
    """A server without its socket, whose application answers with what came once it may."""

    def __init__(self, limits: ConnectionLimits = LIMITS) -> None:
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.connections = Connections(limits)
        self.config = Config(self.application, log_config=None, lifespan="off", interface="asgi3")
        self.config.load()

    async def application(self, scope: Any, receive: Any, send: Any) -> None:
        body, is_more = b"", True
        while is_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, is_more = body + message.get("body", b""), message.get("more_body", False)
        await self.may_answer.wait()
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})

    def connection(self, *sent: bytes) -> tuple[BoundedProtocol, Transport]:
        """A connection on which so much has come."""
        protocol = BoundedProtocol(self.config, self.connections, {})
        transport = Transport()
        protocol.connection_made(transport)
        for each in sent:
            protocol.data_received(each)
        return protocol, transport

    async def rest(self) -> None:
        """Until the application has nothing more to do."""
        for _ in range(20):
            await asyncio.sleep(0)

    def later(self, seconds: float) -> None:
        """Look as if it were so many seconds later."""
        self.connections.look(asyncio.get_running_loop().time() + seconds)


def status_of(transport: Transport) -> int:
    """Of the first answer; 0 where there is none."""
    return int(transport.written[9:12] or 0)


@pytest.fixture
async def server() -> Server:
    return Server()


async def test_a_head_has_so_many_seconds(server: Server) -> None:
    """Who begins one and doesn't end it is told 408, in the envelope, and hung up on; who asks
    nothing gets no answer that could be taken for one to the next request."""
    protocol, begun = server.connection(HEAD[:20])
    _, silent = server.connection()
    server.later(9)
    assert (begun.end, silent.end) == ("", "")
    protocol.data_received(HEAD[20:24])  # byte by byte is no way out
    server.later(11)
    assert (status_of(begun), begun.end) == (408, "closed")
    assert json.loads(begun.written.partition(b"\r\n\r\n")[2])["code"] == "request_timeout"
    assert (silent.written, silent.end) == (b"", "closed")


async def test_who_has_asked_may_be_idle(server: Server) -> None:
    """Between two requests no head is waited for."""
    _, transport = server.connection(WHOLE)
    await server.rest()
    server.later(60)
    assert (status_of(transport), transport.end) == (200, "")


@pytest.mark.parametrize("chunk", [64, 10_000])
async def test_a_head_has_so_many_bytes(server: Server, chunk: int) -> None:
    """A larger one is 431 in the envelope, in pieces or at once, whether it comes to an end or
    not."""
    head = HEAD + b"X-A: " + b"a" * 2000
    for sent in (head, head + b"\r\n\r\n"):
        protocol, transport = server.connection()
        for start in range(0, len(sent), chunk):
            if not transport.end:
                protocol.data_received(sent[start : start + chunk])
        if chunk > len(sent) and not transport.end:
            protocol.data_received(b"a" * 1001)
        assert (status_of(transport), transport.end) == (431, "closed")
        protocol.connection_lost(None)


async def test_a_body_is_no_head(server: Server) -> None:
    """Bodies of any size pass, and what follows on their connection, in one piece or in several."""
    body = b"a" * 5000
    one = HEAD + b"Content-Length: 5000\r\n\r\n" + body
    protocol, transport = server.connection(one + WHOLE[:10], WHOLE[10:])
    await server.rest()
    assert transport.written.count(b"HTTP/1.1 200") == 2
    protocol.data_received(one[:30])
    protocol.data_received(one[30:])
    await server.rest()
    assert transport.written.count(b"HTTP/1.1 200") == 3
    assert transport.end == ""


async def test_there_are_so_many_connections(server: Server) -> None:
    """Who is one too many is told to try again once the request is there, which closing at once
    might keep from being read; far too many are hung up on; one that ends makes room."""
    first, _ = server.connection()
    others = [server.connection() for _ in range(3)]
    surplus, told = others[-1]
    assert (told.written, told.end) == (b"", "")
    surplus.data_received(WHOLE)
    assert (status_of(told), told.end) == (503, "closed")
    assert b"retry-after" in told.written.lower()
    far_too_many = [server.connection()[1] for _ in range(_MOST_REFUSED)]
    assert [each.end for each in far_too_many] == [""] * (_MOST_REFUSED - 1) + ["aborted"]
    for each in server.connections.ours:
        if each is not others[0][0]:
            each.connection_lost(None)
    _, transport = server.connection(WHOLE)
    await server.rest()
    assert status_of(transport) == 200
    assert first not in server.connections.ours


async def test_who_sends_half_a_body_may_be_silent_for_so_long(server: Server) -> None:
    """Then the connection is closed; who has sent all of it waits for the answer, however long."""
    half = server.connection(HEAD + b"Content-Length: 2\r\n\r\na")[1]
    server.may_answer.clear()
    whole = server.connection(WHOLE)[1]
    await server.rest()
    server.later(74)
    assert (half.end, whole.end) == ("", "")
    server.later(3600)
    assert (half.end, whole.end) == ("closed", "")


async def test_who_is_answered_may_not_go_on_with_a_body(server: Server) -> None:
    """What isn't read keeps no connection open."""

    async def refusing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 413, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    server.config.loaded_app = refusing
    protocol, transport = server.connection(HEAD + b"Content-Length: 1000\r\n\r\na")
    await server.rest()
    assert status_of(transport) == 413
    protocol.data_received(b"a")
    server.later(11)
    assert transport.end == "closed"


async def test_who_doesn_t_read_is_hung_up_on(server: Server) -> None:
    """After so many seconds in which nothing was taken; slowly is fast enough."""
    _, transport = server.connection(WHOLE)
    await server.rest()
    for seconds in range(0, 300, 50):
        transport.unsent = 1000 - seconds
        server.later(seconds)
        assert transport.end == ""
    server.later(250 + 76)
    assert transport.end == "aborted"


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
async def test_what_could_be_read_in_two_ways_is_refused(server: Server, head: bytes) -> None:
    """No host, two hosts, a fragment (RFC 9112, section 3.2)."""
    _, transport = server.connection(head)
    assert (status_of(transport), transport.end) == (400, "closed")


@pytest.mark.parametrize(
    "length",
    [b"Content-Length: 2\r\n\r\nab", b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"],
)
@pytest.mark.parametrize("cut", [0, 1, 4])
async def test_a_body_behind_an_upgrade_is_read(server: Server, length: bytes, cut: int) -> None:
    """Java's client sends bodies with an upgrade to HTTP/2. The connection ends with the answer:
    nothing behind it is taken for a request."""
    sent = HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n" + length + WHOLE
    split = len(sent) - len(WHOLE) - cut
    _, transport = server.connection(sent[:split], sent[split:])
    await server.rest()
    head, _, body = transport.written.partition(b"\r\n\r\n")
    assert (status_of(transport), body) == (200, b"ab")
    assert b"connection: close" in head
    assert transport.end == "closed"


async def test_an_earlier_request_is_answered_before_a_later_one_is_refused(
    server: Server,
) -> None:
    """What can't be read behind it ends the connection, and not its answer."""
    server.may_answer.clear()
    protocol, transport = server.connection(WHOLE)
    await server.rest()
    protocol.data_received(b"\0\0\0")
    assert (transport.written, transport.end) == (b"", "")
    server.may_answer.set()
    await server.rest()
    assert (status_of(transport), transport.end) == (200, "closed")


TWO_HOSTS = b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"
LARGE_HEAD = HEAD + b"X-A: " + b"a" * 2000 + b"\r\n\r\n"
BROKEN_BODY = HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"


@pytest.mark.parametrize("ahead", [1, 2, 3])
@pytest.mark.parametrize("cut", [0, 30])
@pytest.mark.parametrize("bad", [TWO_HOSTS, LARGE_HEAD, BROKEN_BODY])
async def test_no_refusal_is_taken_for_an_earlier_request_s_answer(
    server: Server, bad: bytes, ahead: int, cut: int
) -> None:
    """However much of what is refused could be read: those ahead are answered, the last of them
    says that it is, and nothing comes behind."""
    server.may_answer.clear()
    protocol, transport = server.connection(WHOLE * ahead + bad[:cut], bad[cut:])
    await server.rest()
    assert (transport.written, transport.end) == (b"", "")
    protocol.data_received(WHOLE)  # which is never looked at
    server.may_answer.set()
    await server.rest()
    assert transport.written.count(b"HTTP/1.1 200") == transport.written.count(b"HTTP/1.1")
    assert transport.written.count(b"HTTP/1.1 200") == ahead
    assert transport.written.count(b"connection: close") == 1
    assert transport.end == "closed"


async def test_who_hangs_up_is_noticed_though_another_request_waits_behind(server: Server) -> None:
    """The request that is being answered is told, not only the last that has come: nothing is
    written to who has gone."""
    heard: list[str] = []

    async def listening(scope: Any, receive: Any, send: Any) -> None:
        while heard[-1:] != ["http.disconnect"]:
            heard.append((await receive())["type"])

    server.config.loaded_app = listening
    protocol, _ = server.connection(WHOLE + WHOLE)
    await server.rest()
    protocol.connection_lost(None)
    await server.rest()
    assert heard == ["http.request", "http.disconnect"]


async def test_a_broken_body_is_refused_at_once(server: Server) -> None:
    """Its request waits for nothing more."""
    _, transport = server.connection(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"zz\r\n")
    await server.rest()
    assert (status_of(transport), transport.end) == (400, "closed")


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_who_speaks_http_1_0_gets_no_chunks(server: Server, version: bytes) -> None:
    """The end of an answer without a length is that of its connection (RFC 9112, section 6.1)."""

    async def streaming(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for word in (b"one ", b"two", b""):
            await send({"type": "http.response.body", "body": word, "more_body": word != b""})

    server.config.loaded_app = streaming
    _, transport = server.connection(b"GET / HTTP/%b\r\nHost: gateway\r\n\r\n" % version)
    await server.rest()
    head, _, body = transport.written.partition(b"\r\n\r\n")
    if version == b"1.0":
        assert (b"transfer-encoding" in head, body, transport.end) == (False, b"one two", "closed")
    else:
        assert (b"transfer-encoding: chunked" in head, transport.end) == (True, "")
        assert body == b"4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n"


async def test_while_it_closes_each_answer_is_the_last_of_its_connection(server: Server) -> None:
    """Requests that are inside, or come meanwhile, are answered, and said to be the last."""
    protocol, transport = server.connection(WHOLE)
    await server.rest()
    assert transport.end == ""
    server.may_answer.clear()
    _, inside = server.connection(WHOLE)
    await server.rest()
    server.connections.close()
    protocol.data_received(WHOLE)
    await server.rest()
    assert server.connections.under_way == 2
    server.may_answer.set()
    await server.rest()
    assert transport.written.count(b"HTTP/1.1 200") == 2
    assert transport.written.count(b"connection: close") == 1
    assert b"connection: close" in inside.written
    assert transport.end == inside.end == "closed"
    assert server.connections.under_way == 0


async def test_one_look_costs_little(server: Server) -> None:
    """All connections are looked at each second: a thousand take no time that a caller notices."""
    crowded = Server(replace(LIMITS, most=2000))
    for _ in range(1000):
        crowded.connection(WHOLE)
    await crowded.rest()
    loop = asyncio.get_running_loop()
    started = loop.time()
    crowded.connections.look(started)
    assert loop.time() - started < 0.1
