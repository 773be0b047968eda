"""Room for versions of many models in one replica: who waits for it, and who makes it.

`memory_budget` says who has to go. Asyncio only; must not import ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Protocol

from deployments.model_replica.memory_budget import MemoryBudget, Sharing
from deployments.model_replica.version_process import State, VersionProcess

_LOOK_EVERY_S = 0.25


class Residents(Protocol):
    """The processes that share the room, and how they are made to leave it."""

    @property
    def running(self) -> list[VersionProcess]:
        """Those that have, or are to have, a version in memory."""

    @property
    def alive(self) -> list[VersionProcess]:
        """Those, and those that are ending."""

    def evict(self, key: str) -> None:
        """Make room: end the process of a version, after what it has taken."""

    def finish(self, process: VersionProcess) -> None:
        """End a process that nobody uses, after what it has taken."""

    def refuse(self, process: VersionProcess, reason: str) -> None:
        """End a process whose version can't be here."""


class Templates(Protocol):
    """The templates of versions with packages of their own: each has those for itself."""

    def template_pids(self) -> list[int]:
        """Their processes."""

    def close_unused(self) -> None:
        """Keep none that nobody uses: its memory is wanted."""


class RoomClosed(Exception):
    """Nobody comes in any more."""


class SharedRoom:
    """The memory that versions of many models have together."""

    def __init__(self, sharing: Sharing, residents: Residents, *, templates: Templates) -> None:
        self._sharing = sharing
        self._residents = residents
        self._templates = templates
        self._budget = MemoryBudget(sharing.budget_bytes)
        self._freed = asyncio.Event()
        self._is_closed = False

    def has_room(self, key: str) -> bool:
        """Whether the version fits into the budget now, beside all the others."""
        return self._budget.has_room(self._residents.alive, coming=key)

    async def wait(self, key: str) -> None:
        """Wait until the version fits into the budget beside the others, of which those end that
        were not used for the longest time. Who needs more than can be freed now keeps nobody else
        from coming in: those who answer may hang. Raises RoomClosed."""
        residents = self._residents
        while not self.has_room(key):
            if self._is_closed:
                raise RoomClosed
            self._freed.clear()
            self._templates.close_unused()
            for process in self._budget.to_end(residents.alive, time.monotonic(), coming=key):
                residents.evict(process.version.key)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._freed.wait()

    async def take_in(self, process: VersionProcess) -> None:
        """What a process that is ready has taken is known from now on, and its model has no more
        versions than it may."""
        await asyncio.to_thread(self._budget.measure, [process], time.monotonic())
        version = process.version
        ready = [
            process
            for process in self._residents.running
            if process.version.model == version.model
            and process.state is State.READY
            and not process.version.aside
        ]
        surplus = max(0, len(ready) - version.max_loaded_versions)
        for process in sorted(ready, key=lambda each: each.used_at)[:surplus]:
            self._residents.evict(process.version.key)

    async def look(self) -> None:
        """End who isn't used any more, who doesn't fit at all, and who makes the others not fit."""
        budget, residents, now = self._budget, self._residents, time.monotonic()
        await asyncio.to_thread(budget.measure, residents.alive, now)
        await asyncio.to_thread(budget.measure_templates, self._templates.template_pids())
        if budget.is_exceeded(residents.alive):
            self._templates.close_unused()
        for process in budget.too_large(residents.running):
            residents.refuse(process, _too_large(process, budget.most_bytes))
        for process in residents.running:
            is_idle = process.state is State.READY and not process.is_at_work
            if is_idle and now - process.used_at > self._sharing.idle_timeout_s:
                residents.finish(process)
        for process in budget.to_end(residents.alive, now):
            residents.evict(process.version.key)

    def free(self) -> None:
        """A process is no more."""
        self._freed.set()

    def close(self) -> None:
        """Let nobody in any more."""
        self._is_closed = True


def _too_large(process: VersionProcess, most_bytes: int) -> str:
    return (
        f"it takes {(process.own_bytes or 0) // 1_000_000} MB of memory, and the shared "
        f"deployment has {most_bytes // 1_000_000} MB: it needs a deployment of its own"
    )
