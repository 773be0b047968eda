"""Threads of a model's process: for calls that go on beside others, and for streams.

Made when they are first needed: a process that answers one call at a time has none. They are
daemons, so that one that hangs keeps no process alive. Each has an event loop of its own, because
agents ask for the current one (`asyncio.get_event_loop`), and only the main thread has one.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable


class Workers:
    """Runs what is handed over, each in a thread, as many at once as are handed over."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._threads = 0
        self._busy = 0
        self._lock = threading.Lock()

    def run(self, work: Callable[[], None]) -> None:
        """Have it done, at once; it must not raise."""
        with self._lock:
            self._busy += 1
            is_short = self._busy > self._threads
            self._threads += is_short
        self._work.put(work)
        if is_short:
            threading.Thread(target=self._serve, name="call", daemon=True).start()

    def _serve(self) -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        while True:
            work = self._work.get()
            work()
            del work
            with self._lock:
                self._busy -= 1
