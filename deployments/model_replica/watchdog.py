"""Watches over the model's own code in one process, and ends the process where it has hung.

Python can't end a thread, so a load or a call that doesn't come back holds what it has for ever:
its version's turn, the turn to load, memory. The process is given up instead; Serve starts another
and the gateway sends its calls again. Owns how long is too long.

Travels to the replica by value with `deployments.model_replica.versions` and imports nothing else
of ours."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator

from deployments.model_replica.crash_record import CALL, LOAD, VersionRecord

_logger = logging.getLogger("modelmux.host_watch")

GRACE_S = 5.0
"""How long after the last deadline that a call can have it counts as hung."""

_LOOK_EVERY_S = 0.5


class HostWatch:
    """What is at work in this process: keeps the record up to date, and ends the process where
    something takes too long.

    `give_up` must not return in earnest; it is called from a thread.
    """

    def __init__(
        self,
        record: VersionRecord,
        *,
        load_timeout_s: float,
        give_up: Callable[[], None] = lambda: os._exit(1),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._record = record
        self._load_timeout_s = load_timeout_s
        self._give_up = give_up
        self._clock = clock
        self._overdue_at: dict[str, tuple[float, str]] = {}

    def start(self) -> None:
        """Look at what is at work from now on, in a thread of its own: the event loop may be what
        the model's code holds up."""
        threading.Thread(target=self._look_again_and_again, name="watch", daemon=True).start()

    @contextlib.contextmanager
    def loading(self, key: str) -> Iterator[None]:
        """Around putting a version into memory."""
        self._begin(key, LOAD, self._load_timeout_s)
        try:
            yield
        finally:
            self.end(key)

    def begin_call(self, key: str, patience_s: float) -> None:
        """A call of the version begins, which no caller waits for longer than `patience_s`."""
        self._begin(key, CALL, patience_s + GRACE_S)

    def _begin(self, key: str, kind: str, limit_s: float) -> None:
        self._overdue_at[key] = (self._clock() + limit_s, kind)
        self._record.begin(key, kind)

    def end(self, key: str) -> None:
        """The version's load or call came to an end, whichever."""
        self._overdue_at.pop(key, None)
        self._record.end(key)

    def look(self) -> None:
        """End the process if anything has been at work for too long."""
        now = self._clock()
        for key, (overdue_at, kind) in list(self._overdue_at.items()):
            if now > overdue_at:
                _logger.error("a %s of version %s has hung: its process is given up", kind, key)
                self._record.hung(key, kind)
                self._give_up()

    def give_up(self, reason: str) -> None:
        """End the process: it can be of no more use."""
        _logger.error("%s: the process is given up", reason)
        self._give_up()

    def _look_again_and_again(self) -> None:
        while True:
            time.sleep(_LOOK_EVERY_S)
            self.look()
