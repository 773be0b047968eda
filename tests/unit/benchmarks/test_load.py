"""The load's own part: checking answers, one connection at a time."""

from __future__ import annotations

from typing import Any

from benchmarks.load import Caller, Tally
from benchmarks.scenarios.first_request import steps_of


class FakeTransport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.aborted = True


def answer(body: bytes, status: int = 200, extra: bytes = b"") -> bytes:
    """A whole HTTP response."""
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n".encode()
    return head + extra + b"\r\n" + body


def connected(exchanges: list[tuple[bytes, bytes]]) -> tuple[Caller, FakeTransport, Tally]:
    """A caller that has sent its first request."""
    tally, transport = Tally(), FakeTransport()
    caller = Caller(exchanges, 0, tally)
    made: Any = transport
    caller.connection_made(made)
    return caller, transport, tally


async def test_a_right_answer_is_counted_and_the_next_request_sent() -> None:
    """The exchanges are gone through in turn."""
    caller, transport, tally = connected([(b"a", b"1"), (b"b", b"2")])
    caller.data_received(answer(b"1"))
    caller.data_received(answer(b"2"))
    assert transport.written == [b"a", b"b", b"a"]
    assert len(tally.took) == 2
    assert not tally.failed


async def test_an_answer_in_pieces_is_one_answer() -> None:
    """However the bytes come."""
    caller, _, tally = connected([(b"a", b"12345")])
    whole = answer(b"12345")
    for position in range(len(whole)):
        caller.data_received(whole[position : position + 1])
    assert len(tally.took) == 1


async def test_another_body_is_a_failure() -> None:
    """Another caller's answer, for one."""
    caller, _, tally = connected([(b"a", b"1")])
    caller.data_received(answer(b"2"))
    assert not tally.took
    assert tally.problems == {"200: b'2'": 1}


async def test_another_status_is_a_failure() -> None:
    """Even with the right body."""
    caller, _, tally = connected([(b"a", b"1")])
    caller.data_received(answer(b"1", status=503))
    assert len(tally.failed) == 1


async def test_a_connection_lost_while_waiting_is_a_failure() -> None:
    """The request was never answered."""
    caller, _, tally = connected([(b"a", b"1")])
    caller.connection_lost(None)
    assert len(tally.failed) == 1


async def test_a_connection_that_the_server_closes_after_an_answer_is_none() -> None:
    """It is within its rights."""
    caller, transport, tally = connected([(b"a", b"1")])
    caller.data_received(answer(b"1", extra=b"Connection: close\r\n"))
    caller.connection_lost(None)
    assert transport.aborted
    assert not tally.failed


async def test_hanging_up_at_the_end_is_no_failure() -> None:
    """What was asked last is nobody's fault."""
    caller, _, tally = connected([(b"a", b"1")])
    caller.stop()
    caller.connection_lost(None)
    assert not tally.failed


def test_server_timing_is_read_by_step() -> None:
    """A step without a duration is there all the same."""
    assert steps_of("parse;dur=0.5, hop;desc=x;dur=12, bare") == {
        "parse": 0.5,
        "hop": 12.0,
        "bare": 0.0,
    }
