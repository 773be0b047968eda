"""Where a request's body is parsed: at once, in a thread, or in a process beside this one.

A thread keeps the event loop turning, but not while one step of C holds the interpreter: reading 60
MiB of JSON takes seconds of that. So large bodies are read by a process of their own kind
(`parsing_process`), which starts with the first of them. Must not import ray, mlflow or fastapi.
"""

from __future__ import annotations

import asyncio
import weakref
from concurrent.futures import ThreadPoolExecutor

from gateway.contract import TYPED, Contract, Read, Request
from gateway.errors import GatewayUnavailable
from gateway.parsing.worker_process import Answer, Job, ParsingProcess

AT_ONCE_BYTES = 512 * 1024
"""Up to so many bytes a body is parsed on the event loop: to change threads costs more."""

_IN_A_THREAD_BYTES = 2 * 1024 * 1024
_SIDE_BY_SIDE = 2
_RETRY_AFTER_S = 1.0


class Parsing:
    """Parses what is too large for the event loop.

    At most two bodies of each size are parsed at once; the others wait for their turn. Who stops
    waiting has his parse dropped, or its process ended.
    """

    def __init__(self, *, in_a_thread_bytes: int = _IN_A_THREAD_BYTES) -> None:
        self._in_a_thread_bytes = in_a_thread_bytes
        self._threads = ThreadPoolExecutor(_SIDE_BY_SIDE, "parsing")
        # Each of these waits for a process.
        self._askers = ThreadPoolExecutor(_SIDE_BY_SIDE, "parsing-process")
        self._idle: list[ParsingProcess] = []
        self._end_idle = weakref.finalize(self, _end, self._idle)

    async def parse(
        self, contract: Contract, body: bytes, max_rows: int, read: Read = TYPED.read
    ) -> Request:
        """See `Read`; raises GatewayUnavailable where the process died of the body."""
        loop = asyncio.get_running_loop()
        if len(body) <= self._in_a_thread_bytes:
            return await loop.run_in_executor(self._threads, lambda: read(contract, body, max_rows))
        job = Job(contract=contract, body=body, max_rows=max_rows, read=read)
        try:
            answer = await loop.run_in_executor(self._askers, self._ask, job)
        finally:
            job.drop()
        return _request_of(answer)

    def close(self) -> None:
        """End the threads and the processes, once nobody waits for them."""
        self._threads.shutdown()
        self._askers.shutdown()
        self._end_idle()

    def _ask(self, job: Job) -> Answer | None:
        try:
            process = self._idle.pop()
        except IndexError:
            process = ParsingProcess()
        if not process.is_alive():
            process = ParsingProcess()
        try:
            return process.ask(job)
        finally:
            if process.is_alive():
                self._idle.append(process)


def _end(processes: list[ParsingProcess]) -> None:
    while processes:
        processes.pop().close()


def _request_of(answer: Answer | None) -> Request:
    if answer is None:
        raise GatewayUnavailable(
            "The process that read the request's body is gone; try again.",
            retry_after_s=_RETRY_AFTER_S,
        )
    return answer.request()
