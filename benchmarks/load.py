"""The load: N callers, each with one connection, sending the next request when it has the answer.

Runs as a process of its own (`python -m benchmarks.load PLAN`, see `benchmarks.driving`) and costs
little, because it shares the machine with what it measures: uvloop, httptools, and no more per
request than a look at the status and a comparison of the body with the answer that is known to be
right. Knows nothing of contenders.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from array import array
from bisect import bisect_left
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import uvloop
from httptools import HttpResponseParser

_RECONNECT_S = 0.02
_OK = 200
_SHOWN = 300


class Tally:
    """What all callers have seen: when each request ended, how long it took, what went wrong."""

    def __init__(self) -> None:
        self.ended = array("d")
        self.took = array("d")
        self.failed = array("d")
        self.problems: Counter[str] = Counter()

    def fail(self, problem: str) -> None:
        """A request that was not answered, or not rightly."""
        self.failed.append(time.perf_counter())
        self.problems[problem[:_SHOWN]] += 1


class Caller(asyncio.Protocol):
    """One connection. It goes through the exchanges in turn, beginning at its own number."""

    def __init__(self, exchanges: list[tuple[bytes, bytes]], start: int, tally: Tally) -> None:
        self._exchanges = exchanges
        self._next = start % len(exchanges)
        self._tally = tally
        self._answer: list[bytes] = []
        self._wanted = b""
        self._sent = 0.0
        self._waiting = False
        self._stopped = False
        self._transport: asyncio.Transport | None = None
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self.lost.clear()
        self._transport = cast(asyncio.Transport, transport)
        self._parser = HttpResponseParser(self)
        self._send()

    def data_received(self, data: bytes) -> None:
        """Part of an answer."""
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The server hung up: an error where an answer was awaited."""
        self._transport = None
        if self._waiting and not self._stopped:
            self._waiting = False
            self._tally.fail(f"connection lost: {type(exc).__name__}")
        self.lost.set()

    def refused(self, error: OSError) -> None:
        """There was no connection to send anything on."""
        self._tally.fail(f"can't connect: {type(error).__name__}")

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._answer.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser: check the answer, send the next request."""
        now = time.perf_counter()
        self._waiting = False
        tally = self._tally
        status = self._parser.get_status_code()
        if status == _OK and b"".join(self._answer) == self._wanted:
            tally.ended.append(now)
            tally.took.append(now - self._sent)
        else:
            tally.fail(f"{status}: {b''.join(self._answer)!r}")
        if not self._parser.should_keep_alive():
            self._close()
        elif not self._stopped:
            self._send()

    def stop(self) -> None:
        """Hang up, whatever is awaited."""
        self._stopped = True
        self._close()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _send(self) -> None:
        assert self._transport is not None
        request, self._wanted = self._exchanges[self._next]
        self._next = (self._next + 1) % len(self._exchanges)
        self._answer = []
        self._waiting = True
        self._sent = time.perf_counter()
        self._transport.write(request)


async def _call(caller: Caller, host: str, port: int) -> None:
    """Keep a caller connected, until it is cancelled."""
    loop = asyncio.get_running_loop()
    try:
        while True:
            try:
                await loop.create_connection(lambda: caller, host, port)
                await caller.lost.wait()
            except OSError as error:
                caller.lost.clear()
                caller.refused(error)
                await asyncio.sleep(_RECONNECT_S)
    finally:
        caller.stop()


async def run(plan: dict[str, Any]) -> dict[str, Any]:
    """Carry out a plan (`driving.LoadPlan` as JSON); its result as JSON."""
    host, port = _address(plan["url"])
    exchanges = _exchanges(plan)
    tally = Tally()
    callers = [Caller(exchanges, number, tally) for number in range(plan["callers"])]
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(_call(caller, host, port)) for caller in callers]
        await asyncio.sleep(plan["warm_up_s"])
        began = time.perf_counter()
        epoch = time.time() - began
        await asyncio.sleep(plan["round_s"] * plan["rounds"])
        for call in calls:
            call.cancel()
    marks = [began + plan["round_s"] * number for number in range(plan["rounds"] + 1)]
    cuts = [bisect_left(tally.ended, mark) for mark in marks]
    first, last = cuts[0], cuts[-1]
    return {
        "rounds": [list(tally.took[a:b]) for a, b in pairwise(cuts)],
        "ended": [epoch + ended for ended in tally.ended[first:last]] if plan["times"] else [],
        "failed": [epoch + failed for failed in tally.failed],
        "problems": dict(tally.problems.most_common(5)),
    }


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname == "127.0.0.1", "load goes to this machine only"
    assert parts.port is not None
    return parts.hostname, parts.port


def _exchanges(plan: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    """Whole requests, head and body, with the answers wanted."""
    parts = urlsplit(plan["url"])
    made = []
    for body, answer, media_type in plan["exchanges"]:
        content = body.encode()
        head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Content-Type: {media_type}\r\nAccept: {media_type}\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        made.append((head.encode() + content, answer.encode()))
    return made


def main() -> None:
    """Read the plan's file, run, print the result as JSON."""
    plan = json.loads(Path(sys.argv[1]).read_text())
    result = uvloop.run(run(plan))
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
