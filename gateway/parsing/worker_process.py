"""A process that parses bodies, one after the other, and both ends of the connection to it.

It imports the contract and nothing of the rest. Whatever it takes (a gigabyte for 60 MiB of empty
lists, seconds for each), it takes from nobody else; it can be ended in the middle, ends by itself
after a body that left it large, and with the process that started it. Must not import ray, mlflow
or fastapi.
"""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gateway.contract import Contract, Read, Request
from gateway.errors import GatewayError

_LARGE_KIB = 512 * 1024
# Killed before those who answer others, where the machine has no memory left.
_OOM_SCORE = "900"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a body: `found` is a `Request`, or an error's class and attributes.

    `is_last` tells that the process ends now.
    """

    found: Request | tuple[type[GatewayError], dict[str, Any]]
    is_last: bool

    def request(self) -> Request:
        """The request; raises what `Contract.parse` raised."""
        if isinstance(self.found, Request):
            return self.found
        kind, attributes = self.found
        error = kind.__new__(kind)
        error.args = (attributes["detail"],)
        error.__dict__.update(attributes)
        raise error


class Job:
    """A body to be parsed, until nobody waits for it any more."""

    def __init__(self, *, contract: Contract, body: bytes, max_rows: int, read: Read) -> None:
        self.read = read
        self.contract = contract
        self.body = body
        self.max_rows = max_rows
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_over = False

    def begin(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether somebody still waits; if so, `drop` ends this process from now on."""
        with self._lock:
            if not self._is_over:
                self._process = process
            return not self._is_over

    def end(self) -> None:
        """The process has answered."""
        with self._lock:
            self._is_over = True
            self._process = None

    def drop(self) -> None:
        """Nobody waits any more: end what is at it."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
            self._is_over = True


class ParsingProcess:
    """This side of a process. To be used by one thread at a time."""

    def __init__(self) -> None:
        # Neither the folder that it is started in nor a variable decides what it imports.
        self._connection, theirs = Pipe()
        with theirs:
            number = theirs.fileno()
            code = (
                f"import sys; sys.path[:] = {sys.path!r}; import {__name__} as it; "
                f"it.answer_all({number})"
            )
            self._process = subprocess.Popen(  # noqa: S603 - nothing in it that callers said
                [sys.executable, "-P", "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(number,),
            )

    def is_alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def ask(self, job: Job) -> Answer | None:
        """Wait for what comes of the job; None where the process ended without an answer."""
        if not job.begin(self._process):
            return None  # nor does anybody wait for this
        try:
            answer = self._exchange(job)
        finally:
            job.end()
        if answer is None or answer.is_last:
            self.close()
        return answer

    def close(self) -> None:
        """Wait for its end, which is when its connection ends."""
        self._connection.close()
        self._process.wait()

    def _exchange(self, job: Job) -> Answer | None:
        with suppress(OSError, EOFError):
            self._connection.send((job.contract, job.max_rows, job.read))
            self._connection.send_bytes(job.body)
            found = self._connection.recv()
            assert isinstance(found, Answer)
            return found
        return None


def answer_all(descriptor: int) -> None:
    """The process itself: answers until its connection ends."""
    gc.disable()  # no cycles come of JSON, and to look for them takes longer than to read it
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    with suppress(OSError, EOFError, KeyboardInterrupt), Connection(descriptor) as connection:
        while True:
            contract, max_rows, read = connection.recv()
            answer = _answer(contract, connection.recv_bytes(), max_rows, read)
            connection.send(answer)
            if answer.is_last:
                return


def _answer(contract: Contract, body: bytes, max_rows: int, read: Read) -> Answer:
    found: Request | tuple[type[GatewayError], dict[str, Any]]
    try:
        found = read(contract, body, max_rows)
    except GatewayError as error:
        found = (type(error), dict(error.__dict__))
    return Answer(found=found, is_last=_most_memory_kib() > _LARGE_KIB)


def _most_memory_kib() -> int:
    """The most memory that this program has had; 0 where the system has no `/proc`.

    Not `ru_maxrss`: Linux counts into that what the process was before it became this program, and
    so the memory of the gateway that started it (`exec_mmap` in its `fs/exec.c`).
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    peak = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    return 0 if peak is None else int(peak[1])
