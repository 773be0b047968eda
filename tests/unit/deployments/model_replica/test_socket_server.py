"""A replica's socket and the connections to it, over real sockets of this machine."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from deployments.model_calls.socket_connection import Connection, connected_socket
from deployments.model_replica import socket_server as model_socket
from deployments.model_replica.socket_server import ModelSocket
from tests.support.processes import poll

TIMEOUT_S = 10.0


class Answering:
    """Answers with what it is asked, once it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.asked: list[Any] = []

    def __call__(self, *arguments: Any) -> tuple[str, Any]:
        self.asked.append(arguments)
        assert self.go.wait(TIMEOUT_S)
        return ("ok", arguments)


@pytest.fixture
def answering() -> Answering:
    return Answering()


@pytest.fixture
def listening(answering: Answering) -> Iterator[ModelSocket]:
    made = ModelSocket(answering)
    yield made
    answering.go.set()
    made.close(timeout_s=TIMEOUT_S)


def connect(to: ModelSocket) -> Connection:
    ours = connected_socket(to.name)
    assert ours is not None
    return Connection(ours)


async def until_asked(answering: Answering, count: int) -> None:
    await asyncio.to_thread(poll, lambda: len(answering.asked) >= count, timeout_s=TIMEOUT_S)


async def test_calls_are_answered_each_with_its_own(listening: ModelSocket) -> None:
    """Many calls at once, more than travel at a time, get the answers to what each has asked."""
    connection = connect(listening)
    answers = await asyncio.gather(*(connection.call(n) for n in range(50)))
    assert answers == [("ok", (n,)) for n in range(50)]


async def test_large_calls_and_answers_pass(listening: ModelSocket) -> None:
    """What is larger than any buffer on the way arrives whole, in both directions."""
    content = os.urandom(20_000_000)
    assert await connect(listening).call(content) == ("ok", (content,))


async def test_a_call_whose_caller_has_left_is_not_sent(
    listening: ModelSocket, answering: Answering
) -> None:
    """Of calls that wait for their turn to travel, those that nobody waits for are dropped."""
    connection = connect(listening)
    answering.go.clear()
    calls = [asyncio.create_task(connection.call(n)) for n in range(4)]
    await until_asked(answering, 1)
    calls[2].cancel()
    answering.go.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(each) for each in outcomes] == [tuple, tuple, asyncio.CancelledError, tuple]
    assert answering.asked == [(0,), (1,), (3,)]


async def test_a_caller_who_leaves_disturbs_no_other(
    listening: ModelSocket, answering: Answering
) -> None:
    """The answer to a call that was cancelled on its way goes to nobody else."""
    connection = connect(listening)
    answering.go.clear()
    first, second = (asyncio.create_task(connection.call(n)) for n in range(2))
    await until_asked(answering, 1)
    first.cancel()
    answering.go.set()
    assert await second == ("ok", (1,))


async def test_a_replica_that_goes_away_fails_what_is_on_its_way(answering: Answering) -> None:
    """Calls that are not answered when the connection ends raise ConnectionError, and so do later
    ones."""

    def dying(*_: Any) -> tuple[str, Any]:
        raise OSError

    listening = ModelSocket(dying)
    connection = connect(listening)
    outcomes = await asyncio.gather(*(connection.call(n) for n in range(4)), return_exceptions=True)
    assert all(isinstance(each, ConnectionError) for each in outcomes)
    with pytest.raises(ConnectionError):
        await connection.call(5)
    listening.close(timeout_s=TIMEOUT_S)


async def test_an_answer_that_can_t_be_pickled_is_that_call_s_alone() -> None:
    """It is told as an output without a plain form; the calls behind it, on the same connection,
    are answered."""

    def answer(asked: int) -> tuple[str, Any]:
        return ("ok", threading.Lock() if asked == 1 else asked)

    listening = ModelSocket(answer)
    connection = connect(listening)
    outcomes = await asyncio.gather(*(connection.call(n) for n in range(3)))
    assert outcomes == [("ok", 0), ("unsupported_output", None), ("ok", 2)]
    listening.close(timeout_s=TIMEOUT_S)


async def test_closing_answers_what_was_taken(listening: ModelSocket, answering: Answering) -> None:
    """A replica that is stopped still answers the call that the model is busy with."""
    connection = connect(listening)
    answering.go.clear()
    call = asyncio.create_task(connection.call("busy"))
    await until_asked(answering, 1)
    closing = asyncio.create_task(asyncio.to_thread(listening.close, timeout_s=TIMEOUT_S))
    answering.go.set()
    assert await call == ("ok", ("busy",))
    await closing
    assert connected_socket(listening.name) is None


async def test_leaving_waits_for_the_answers(listening: ModelSocket, answering: Answering) -> None:
    """A connection that is left hangs up once its calls are answered, not before."""
    connection = connect(listening)
    answering.go.clear()
    call = asyncio.create_task(connection.call("last"))
    await until_asked(answering, 1)
    connection.leave()
    answering.go.set()
    assert await call == ("ok", ("last",))
    await asyncio.to_thread(poll, lambda: connection.is_lost, timeout_s=TIMEOUT_S)


async def test_only_processes_of_the_same_user_are_answered(
    listening: ModelSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What travels is pickled, so a process of another user is hung up on before it is read."""
    monkeypatch.setattr(model_socket.os, "getuid", lambda: -1)
    assert connected_socket(listening.name) is None
    stranger = Connection(_unchecked(listening.name))
    with pytest.raises(ConnectionError):
        await stranger.call(2)


def _unchecked(name: str) -> socket.socket:
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.connect(f"\0{name}")
    ours.setblocking(False)
    return ours
