"""Progress in shared memory: what a model's process is at, for the supervisor that watches it.

The process writes a few numbers before and after each call, which costs it nothing; the supervisor
looks at them now and then, and needs nobody's answer: who hangs gives none.
"""

from __future__ import annotations

import mmap
import os
import struct

_SIZE = 64
_OVERDUE, _USED, _CALLS = 0, 8, 16
_SECONDS, _COUNT = struct.Struct("<d"), struct.Struct("<Q")


class Mark:
    """The numbers of one process. Times are of the monotonic clock, in seconds."""

    def __init__(self, path: str) -> None:
        """Over the file at `path`, which may be removed once both have it."""
        descriptor = os.open(path, os.O_RDWR)
        try:
            self._memory = mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)
        self._calls = 0

    @staticmethod
    def prepare(descriptor: int) -> None:
        """Make a new file one of no calls; raises OSError where the disk has no room for it."""
        os.write(descriptor, bytes(_SIZE))

    def begin(self, now: float, patience_s: float) -> None:
        """A call begins, which nobody waits for longer than so many seconds."""
        self._calls += 1
        _SECONDS.pack_into(self._memory, _USED, now)
        _COUNT.pack_into(self._memory, _CALLS, self._calls)
        _SECONDS.pack_into(self._memory, _OVERDUE, now + patience_s)

    def end(self) -> None:
        """The call came to an end."""
        _SECONDS.pack_into(self._memory, _OVERDUE, 0.0)

    @property
    def is_at_work(self) -> bool:
        """Whether a call goes on."""
        return bool(_SECONDS.unpack_from(self._memory, _OVERDUE)[0])

    @property
    def overdue_at(self) -> float:
        """When nobody waits any more for the call that goes on; 0 where none does."""
        return float(_SECONDS.unpack_from(self._memory, _OVERDUE)[0])

    @property
    def used_at(self) -> float:
        """When the last call began; 0 where there was none."""
        return float(_SECONDS.unpack_from(self._memory, _USED)[0])

    @property
    def calls(self) -> int:
        """How many calls have begun."""
        return int(_COUNT.unpack_from(self._memory, _CALLS)[0])

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()
