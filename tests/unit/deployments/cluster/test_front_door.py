"""Who listens at the front door, and who is told what there, while the ingress comes and goes."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from deployments.cluster import front_door
from deployments.cluster.front_door import FrontDoor, open_front_door
from deployments.ingress.front_door import FrontDoorServer, most_connections, serve_at
from deployments.model_process.channel import connected
from tests.support.processes import free_port
from tests.support.supervised import until

PATIENCE_S = 5.0


class Application:
    """Answers with its name, when it may."""

    def __init__(self, name: str) -> None:
        self.name = name.encode()
        self.inside = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.inside += 1
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": self.name})
        self.inside -= 1

    async def at(self, door: FrontDoor) -> FrontDoorServer:
        return await serve_at(door.address, self, patience_s=PATIENCE_S)


@pytest.fixture
async def door() -> AsyncIterator[FrontDoor]:
    port = free_port()
    opened = open_front_door("127.0.0.1", port)
    opened.url = f"http://127.0.0.1:{port}"  # type: ignore[attr-defined]
    yield opened
    opened.end()


@pytest.fixture
async def caller(door: FrontDoor) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=door.url, timeout=20) as client:  # type: ignore[attr-defined]
        yield client


async def told_to_try_again(caller: httpx.AsyncClient) -> bool:
    answer = await caller.post("/models/m/predict", content=b"x" * 1_000_000)
    if answer.status_code == 200:
        return False
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json()["code"] == "gateway_unavailable"
    return True


async def test_while_no_ingress_is_there_callers_are_told_so(
    door: FrontDoor, caller: httpx.AsyncClient
) -> None:
    """Before the first one and between two, in the envelope; never a connection that is refused."""
    assert await told_to_try_again(caller)
    for name in ("first", "second"):
        server = await Application(name).at(door)
        assert (await caller.get("/")).text == name
        await server.close()
        await until(lambda: not door._loans)
        assert await told_to_try_again(caller)


async def test_an_ingress_that_dies_is_noticed_at_once(
    door: FrontDoor, caller: httpx.AsyncClient
) -> None:
    """Its end of the loan is closed by the system; who asks then is told to try again."""
    server = await Application("killed").at(door)
    assert (await caller.get("/", headers={"Connection": "close"})).text == "killed"
    server._loan._connection.shutdown(socket.SHUT_RDWR)
    for each in server._server._server.servers:
        each.close()
    await until(lambda: not door._loans)
    assert await told_to_try_again(caller)
    await server.close()


async def test_whoever_is_accepted_while_an_ingress_comes_is_answered(door: FrontDoor) -> None:
    """A crowd that connects in the moment in which the sockets are lent is answered, each, by
    whoever accepted it: none waits for ever."""
    address = door._listener.getsockname()
    go_on = threading.Event()
    door._loop.call_soon_threadsafe(go_on.wait)  # so that all of it is new to it at once
    loan = connected(door.address)
    crowd = [await asyncio.open_connection(*address) for _ in range(50)]
    for _, writer in crowd:
        writer.write(b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n")
    go_on.set()
    await until(lambda: len(door._loans) == 1)
    loan.close()
    async with asyncio.timeout(PATIENCE_S):
        answers = {await reader.readline() for reader, _ in crowd}
    assert answers == {b"HTTP/1.1 503 Service Unavailable\r\n"}
    for _, writer in crowd:
        writer.close()


async def test_more_than_can_be_told_at_once_wait_for_their_turn(
    door: FrontDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is hung up on: when one has been told the next one is, and the ingress that comes
    answers the others."""
    monkeypatch.setattr(front_door, "_MOST_TOLD", 2)
    address = door._listener.getsockname()
    silent = [await asyncio.open_connection(*address) for _ in range(2)]
    await until(lambda: door._told == 2)
    (reader, writer), (later, other) = [await asyncio.open_connection(*address) for _ in range(2)]
    for each in (writer, other):
        each.write(b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n")
    silent[0][1].close()
    assert await reader.readline() == b"HTTP/1.1 503 Service Unavailable\r\n"
    server = await Application("came").at(door)
    assert await later.readline() == b"HTTP/1.1 200 OK\r\n"
    for each in (writer, other, silent[1][1]):
        each.close()
    await server.close()


async def test_the_door_is_lent_though_files_were_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher that can't accept who borrows, for lack of files, tries again."""
    monkeypatch.setattr(front_door, "_FILES_S", 0.01)
    door = FrontDoor(socket.create_server(("127.0.0.1", 0)))
    accept, failures = door._loop.sock_accept, [OSError(errno.EMFILE, "Too many open files")]

    async def short_of_files(listener: socket.socket) -> Any:
        if failures:
            raise failures.pop()
        return await accept(listener)

    monkeypatch.setattr(door._loop, "sock_accept", short_of_files)
    door.open()
    server = await Application("borrows").at(door)
    assert not failures
    await server.close()
    door.end()


async def test_a_successor_serves_beside_who_still_answers(
    door: FrontDoor, caller: httpx.AsyncClient
) -> None:
    """Ray may start the next one before the last has ended: no request fails."""
    first, second = Application("first"), Application("second")
    old = await first.at(door)
    first.may_answer.clear()
    asked = asyncio.create_task(caller.get("/"))
    await until(lambda: first.inside == 1)
    new = await second.at(door)
    closing = asyncio.create_task(old.close())
    await until(lambda: len(door._loans) == 2)
    await until(lambda: old._server._connections.is_closing)
    for _ in range(10):
        assert (await caller.get("/", headers={"Connection": "close"})).text == "second"
    first.may_answer.set()
    assert (await asked).text == "first"
    await closing
    await new.close()


async def test_at_the_end_what_was_accepted_is_answered(
    door: FrontDoor, caller: httpx.AsyncClient
) -> None:
    """Who comes meanwhile can't connect; a connection that is kept has one more answer, its last;
    closing returns when all is answered."""
    application = Application("ends")
    server = await application.at(door)
    async with httpx.AsyncClient(base_url=door.url) as kept:  # type: ignore[attr-defined]
        assert (await kept.get("/")).text == "ends"
        application.may_answer.clear()
        asked = asyncio.create_task(caller.get("/"))
        await until(lambda: application.inside == 1)
        closing = asyncio.create_task(asyncio.to_thread(door.close, PATIENCE_S))
        await until(lambda: server._server._connections.is_closing)
        with pytest.raises(httpx.ConnectError):
            await httpx.AsyncClient().get(door.url)  # type: ignore[attr-defined]
        last = asyncio.create_task(kept.get("/"))
        await until(lambda: application.inside == 2)
        assert not closing.done()
        application.may_answer.set()
        assert (await asked).text == (await last).text == "ends"
        assert (await last).headers["Connection"] == "close"
        await closing
    await server.close()


async def test_nothing_is_waited_for_longer_than_said(
    door: FrontDoor, caller: httpx.AsyncClient
) -> None:
    """A request that isn't answered doesn't keep the door open."""
    application = Application("hangs")
    server = await application.at(door)
    application.may_answer.clear()
    asked = asyncio.create_task(caller.get("/"))
    await until(lambda: application.inside == 1)
    await asyncio.to_thread(door.close, 0.2)
    asked.cancel()
    application.may_answer.set()
    await server.close()


async def test_what_isn_t_http_is_closed_without_an_answer(door: FrontDoor) -> None:
    """And takes nothing from others."""
    reader, writer = await asyncio.open_connection(*door._listener.getsockname())
    writer.write(b"a" * 200_000)
    with suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize("host", ["::1", "[::1]", "::", "localhost", "0.0.0.0"])
async def test_it_listens_where_it_is_told(host: str) -> None:
    """At addresses of both kinds, and at names."""
    port = free_port()
    door = open_front_door(host, port)
    reached_at = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}.get(host, host.strip("[]"))
    with socket.create_connection((reached_at, port), 5):
        pass
    with pytest.raises(OSError, match="in use"):
        open_front_door(host, port)
    door.end()


def test_connections_leave_files_for_everything_else() -> None:
    """However many a process may open."""
    assert 100 <= most_connections() <= 16_384
