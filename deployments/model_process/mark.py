"""Progress in shared memory: what a model's process is at, for the supervisor that watches it.

The process writes a few numbers before and after each call, which costs it nothing; the supervisor
looks at them now and then, and needs nobody's answer: who hangs gives none.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading

_SIZE = 64
_OVERDUE, _USED, _CALLS, _ENDED = 0, 8, 16, 24
_SECONDS, _COUNT = struct.Struct("<d"), struct.Struct("<Q")


class Mark:
    """The numbers of one process, whose calls may go on side by side, in threads. Times are of the
    monotonic clock, in seconds."""

    def __init__(self, path: str) -> None:
        """Over the file at `path`, which may be removed once both have it."""
        descriptor = os.open(path, os.O_RDWR)
        try:
            self._memory = mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)
        self._calls = 0
        self._ended = 0
        self._going_on: dict[int, float] = {}
        self._lock = threading.Lock()

    @staticmethod
    def prepare(descriptor: int) -> None:
        """Make a new file one of no calls; raises OSError where the disk has no room for it."""
        os.write(descriptor, bytes(_SIZE))

    def begin(self, now: float, patience_s: float) -> int:
        """A call begins, which nobody waits for longer than so many seconds; its number."""
        with self._lock:
            self._calls += 1
            self._going_on[self._calls] = now + patience_s
            _SECONDS.pack_into(self._memory, _USED, now)
            _COUNT.pack_into(self._memory, _CALLS, self._calls)
            self._write_overdue()
            return self._calls

    def end(self, call: int) -> None:
        """The call of that number came to an end."""
        with self._lock:
            self._ended += 1
            del self._going_on[call]
            _COUNT.pack_into(self._memory, _ENDED, self._ended)
            self._write_overdue()

    def _write_overdue(self) -> None:
        _SECONDS.pack_into(self._memory, _OVERDUE, max(self._going_on.values(), default=0.0))

    @property
    def is_at_work(self) -> bool:
        """Whether a call goes on."""
        return bool(_SECONDS.unpack_from(self._memory, _OVERDUE)[0])

    @property
    def overdue_at(self) -> float:
        """When nobody waits any more for any call that goes on; 0 where none does. So one that
        hangs is no harm to those beside it."""
        return float(_SECONDS.unpack_from(self._memory, _OVERDUE)[0])

    @property
    def used_at(self) -> float:
        """When the last call began; 0 where there was none."""
        return float(_SECONDS.unpack_from(self._memory, _USED)[0])

    @property
    def calls(self) -> int:
        """How many calls have begun."""
        return int(_COUNT.unpack_from(self._memory, _CALLS)[0])

    @property
    def ended(self) -> int:
        """How many calls have come to an end."""
        return int(_COUNT.unpack_from(self._memory, _ENDED)[0])

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()
