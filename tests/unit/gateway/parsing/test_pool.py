"""Large bodies: parsed in a thread or another process, with what comes of them unchanged."""

from __future__ import annotations

import asyncio
import gc
import mmap
from collections.abc import Iterator

import orjson
import pytest

from gateway.contract import Contract, Request
from gateway.errors import GatewayError, GatewayUnavailable
from gateway.parsing.pool import Parsing
from tests.support.catalogs import signature
from tests.support.processes import poll

NUMBER = Contract.from_signature(orjson.loads(signature(("x", "double"))))
MAX_ROWS = 10
LARGE = 520 << 20
BODIES = {
    "rows": b'[{"x":1},{"x":2.5}]',
    "no rows": b"[]",
    "wrong rows": b'[{"x":1},{"x":"a"},{"y":1}]',
    "too many rows": b"[" + b",".join([b"{}"] * 11) + b"]",
    "no JSON": b"[",
}


@pytest.fixture(params=[1_000_000, 0], ids=["in a thread", "in a process"])
def parsing(request: pytest.FixtureRequest) -> Iterator[Parsing]:
    made = Parsing(in_a_thread_bytes=request.param)
    yield made
    made.close()


def told(error: GatewayError) -> tuple[type, str, dict[str, object]]:
    """All that a caller is told of it."""
    return type(error), error.detail, dict(error.members())


async def test_what_comes_of_a_body_is_the_same(parsing: Parsing) -> None:
    """Requests and refusals are those of `Contract.parse`, wherever it runs."""
    for body in BODIES.values():
        try:
            want = NUMBER.parse(body, max_rows=MAX_ROWS)
        except GatewayError as error:
            with pytest.raises(type(error)) as refused:
                await parsing.parse(NUMBER, body, MAX_ROWS)
            assert told(refused.value) == told(error)  # noqa: PT017 - of two that are alike
            continue
        found = await parsing.parse(NUMBER, body, MAX_ROWS)
        assert (found.rows, found.params) == (want.rows, want.params)
        for (places, frame), (their_places, theirs) in zip(found.frames, want.frames, strict=True):
            assert (list(places), frame.key) == (list(their_places), theirs.key)
            assert [list(c) for c in frame.columns] == [list(c) for c in theirs.columns]


async def test_who_does_not_wait_any_more_frees_the_process() -> None:
    """A body that takes long is dropped at its deadline, and the next ones are parsed as ever, more
    of them than there are processes."""
    parsing = Parsing(in_a_thread_bytes=100)
    long = b"[" + b",".join([b'{"x":""}'] * 2_000_000) + b"]"
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await parsing.parse(NUMBER, long, len(long))
    rows = b"[" + b",".join([b'{"x":1}'] * 100) + b"]"
    found = await asyncio.gather(*(parsing.parse(NUMBER, rows, 100) for _ in range(5)))
    assert [each.rows for each in found] == [100] * 5
    parsing.close()


async def test_a_process_that_dies_is_that_body_s_alone() -> None:
    """Its caller is told to try again, and the next body has another process."""
    parsing = Parsing(in_a_thread_bytes=0)

    class Dies(Contract):
        def __reduce__(self) -> tuple[object, tuple[int]]:
            import os

            return os._exit, (1,)

    with pytest.raises(GatewayUnavailable):
        await parsing.parse(Dies(**NUMBER.__getstate__()), b"{}", MAX_ROWS)
    assert (await parsing.parse(NUMBER, b'{"x":1}', MAX_ROWS)).rows == 1
    parsing.close()


async def test_only_a_process_that_has_grown_itself_ends() -> None:
    """However large the gateway is that started it, one reads body after body, until one of them
    has left it large."""
    with mmap.mmap(-1, LARGE) as grown:
        for page in range(0, LARGE, mmap.PAGESIZE):
            grown[page] = 1
        parsing = Parsing(in_a_thread_bytes=0)
        await parsing.parse(NUMBER, b'{"x":1}', MAX_ROWS)
    (process,) = parsing._idle
    await parsing.parse(NUMBER, b'{"x":1}', MAX_ROWS)
    assert parsing._idle == [process]
    await parsing.parse(NUMBER, b'{"x":1}', MAX_ROWS, read=grows)
    assert not parsing._idle
    assert not process.is_alive()
    parsing.close()


def grows(contract: Contract, body: bytes, max_rows: int) -> Request:
    """Reads a body, and takes a lot for it."""
    assert bytearray(b"x") * LARGE
    return contract.parse(body, max_rows=max_rows)


async def test_processes_end_with_a_pool_that_nobody_has_any_more() -> None:
    """Whoever forgets a pool leaves no process behind."""
    parsing = Parsing(in_a_thread_bytes=0)
    await parsing.parse(NUMBER, b'{"x":1}', MAX_ROWS)
    (process,) = parsing._idle
    assert process.is_alive()
    del parsing

    def has_ended() -> bool:
        gc.collect()  # a thread of the pool's may have it until a moment after the answer
        return not process.is_alive()

    poll(has_ended, timeout_s=20, what="the process's end")
