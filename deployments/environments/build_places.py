"""Whose turn it is to build: no more go on at once than may, and one that takes long is in nobody's
way. By locks, which all processes have in common that share a store. Asyncio only.
"""

from __future__ import annotations

import asyncio
import os

from deployments.environments.store import Store, try_lock, unlock

LOOK_S = 0.2
"""How often it is looked whether something is free."""


class BuildPlace:
    """What one build has locked, of who builds it, and as one of those who may build at once. To be
    closed."""

    def __init__(self, store: Store, built: int, most_at_once: int) -> None:
        self._store = store
        self._most_at_once = most_at_once
        self._built = built
        self._slot: int | None = None
        self._slow: list[int] = []

    @property
    def descriptors(self) -> list[int]:
        """All that are open. Who is given them has what is locked by them, now and later."""
        slot = [] if self._slot is None else [self._slot]
        return [self._built, *slot, *self._slow]

    def has_slot(self) -> bool:
        """Whether it is one of those who may build at once from now on."""
        self._slot = self._store.try_for_slot(self._most_at_once)
        if self._slot is not None:
            self._slow = self._store.slow_places(self._most_at_once)
        return self._slot is not None

    def has_slow(self) -> bool:
        """Whether it may go on beside those from now on."""
        if not self._slow:
            self._slow = self._store.slow_places(self._most_at_once)
        return any(map(try_lock, self._slow))

    async def give_way(self, after_s: float) -> None:
        """After that time, leave the place to another as soon as it may go on without."""
        await asyncio.sleep(after_s)
        while self._slot is not None:
            if self.has_slow():
                # Not closed: what was started with it has it, too, and isn't to be asked.
                unlock(self._slot)
                return
            await asyncio.sleep(LOOK_S)

    def close(self) -> None:
        """Let all go that nobody else was given."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self._slot, self._slow = None, []
