"""Callers over plain streams, for crowds: a client library's pool of hundreds of connections takes
longer than the gateway, and would be what is measured.

Run as a program (`python -m tests.support.raw_callers URL MODEL WAITING REFUSED`) it is a flood in
a process of its own, which goes on until its standard input ends and then prints the statuses that
it had."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back; the names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def request(model: str, body: bytes, **headers: str) -> bytes:
    """The bytes of a prediction's request; keyword arguments are headers, with underscores."""
    lines = [
        f"POST /models/{quote(model, safe='')}/predict HTTP/1.1",
        "Host: gateway",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the gateway."""
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def received(reader: asyncio.StreamReader) -> Answer:
    """The next answer on a connection."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Answer(status=int(first.split()[1]), headers=headers, body=body)


class RawCaller:
    """One caller with a connection of its own, which is kept."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def predict(self, model: str, body: Any, **headers: str) -> Answer:
        """The answer to a prediction's request; raises OSError and EOFError where there is none,
        and the next request has another connection then."""
        if self._streams is None or self._streams[0].at_eof():  # hung up meanwhile
            self.close()
            self._streams = await connect(self._url)
        reader, writer = self._streams
        is_whole = False
        try:
            writer.write(request(model, json.dumps(body).encode(), **headers))
            answer = await received(reader)
            is_whole = answer.headers.get("connection") != "close"
        finally:
            if not is_whole:
                self.close()
        return answer

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


@contextmanager
def flooded(url: str, model: str, waiting: int, refused: int) -> Iterator[Counter[int]]:
    """So many callers ask the model again and again, as polite as Retry-After tells them to be.
    Begins when those who are too many have been refused, so that all have been seen: their
    connections and first requests are behind it. The statuses that they had are in what was
    yielded when the block is over."""
    command = [sys.executable, "-m", "tests.support.raw_callers", url, model]
    command += [str(waiting), str(refused)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    statuses: Counter[int] = Counter()
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "flooded\n"
        yield statuses
    finally:
        out, _ = process.communicate()
        statuses.update({int(status): n for status, n in json.loads(out or "{}").items()})


async def _flood(url: str, model: str, waiting: int, refused: int) -> Counter[int]:
    statuses: Counter[int] = Counter()
    stop, flooded = asyncio.Event(), asyncio.Event()

    async def go_on() -> None:
        caller = RawCaller(url)
        while not stop.is_set():
            answer = await caller.predict(model, {"x": 1.0})
            statuses[answer.status] += 1
            if statuses[429] == refused:
                flooded.set()
            if answer.status == 429:
                # Not all at the same moment again.
                pause_s = float(answer.headers["retry-after"]) * random.uniform(1, 2)
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), pause_s)
        caller.close()

    asking = [asyncio.create_task(go_on()) for _ in range(waiting + refused)]
    await flooded.wait()
    sys.stdout.write("flooded\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    stop.set()
    await asyncio.gather(*asking)
    return statuses


if __name__ == "__main__":
    _, url, model, waiting, refused = sys.argv
    sys.stdout.write(json.dumps(asyncio.run(_flood(url, model, int(waiting), int(refused)))))
