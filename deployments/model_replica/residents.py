"""What an LRU keeps of versions that are in memory. Must not import ray."""

from __future__ import annotations

from collections.abc import Awaitable, Callable


class Resident:
    """What the LRU keeps of a version: as long as it does, the version may be in memory."""

    def __init__(self, evict: Callable[[], None]) -> None:
        self._evict = evict

    def __del__(self) -> None:
        """Called by Ray when the version is the least recently used, in a thread."""
        self._evict()


Keep = Callable[[str], Awaitable[Resident]]
"""Keeps what was used last: takes a version's key (Ray's multiplexed LRU)."""
