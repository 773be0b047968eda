"""An answer's head and body in one write, seen at the transport below and at a real server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.http.server.write_coalescing import JoinedWrites

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Transport:
    """Notes what it is asked to do."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def write(self, data: bytes) -> None:
        self.seen.append(data)

    def close(self) -> None:
        self.seen.append("close")

    def is_closing(self) -> bool:
        return "close" in self.seen


@pytest.fixture
async def below() -> Transport:
    return Transport()


@pytest.fixture
async def joined(below: Transport) -> JoinedWrites:
    return JoinedWrites(below)  # type: ignore[arg-type]  # all of it that is used


async def test_a_head_and_its_body_are_one_write(below: Transport, joined: JoinedWrites) -> None:
    """What follows a head at once travels with it."""
    joined.write(HEAD)
    joined.write(b"body")
    joined.write(b"more")
    await asyncio.sleep(0)
    assert below.seen == [HEAD + b"body", b"more"]


async def test_a_head_alone_does_not_wait_for_long(below: Transport, joined: JoinedWrites) -> None:
    """A head whose body comes later is sent within a turn of the event loop."""
    joined.write(HEAD)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert below.seen == [HEAD]


async def test_large_bodies_are_not_copied(below: Transport, joined: JoinedWrites) -> None:
    """To put a head before megabytes would cost more than a second write."""
    body = bytes(1_000_000)
    joined.write(HEAD)
    joined.write(body)
    assert below.seen == [HEAD, body]


async def test_what_was_written_is_sent_before_the_end(
    below: Transport, joined: JoinedWrites
) -> None:
    """Closing loses nothing, and the rest of a transport is the one below."""
    joined.write(HEAD)
    joined.close()
    await asyncio.sleep(0)
    assert below.seen == [HEAD, "close"]
    assert joined.is_closing()
