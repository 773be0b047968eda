"""Single-flight: work that several callers share is done once, and belongs to none of them.

Asyncio only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from contextvars import Context
from functools import partial
from typing import Any, Generic, TypeVar

_K = TypeVar("_K")
_T = TypeVar("_T")


class SingleFlight(Generic[_K, _T]):
    """One run of the work under each key, however many wait for it.

    It runs in no caller's context: Ray Serve cancels what was begun in the context of a request
    whose caller has left. A caller who is cancelled leaves alone; the work goes on.
    """

    def __init__(self) -> None:
        self._going_on: dict[_K, asyncio.Task[_T]] = {}

    async def run(self, key: _K, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """What comes of the work, begun now unless it is going on; raises what it raises."""
        return await asyncio.shield(self.start(key, work))

    def start(self, key: _K, work: Callable[[], Coroutine[Any, Any, _T]]) -> asyncio.Task[_T]:
        """The task of the work, begun now unless it is going on. To be awaited in a shield only."""
        task = self._going_on.get(key)
        if task is None or task.done():
            task = asyncio.get_running_loop().create_task(work(), context=Context())
            self._going_on[key] = task
            task.add_done_callback(partial(self._end, key))
        return task

    def __contains__(self, key: _K) -> bool:
        return key in self._going_on

    def going_on(self) -> Collection[asyncio.Task[_T]]:
        """The tasks that have not ended."""
        return self._going_on.values()

    def _end(self, key: _K, task: asyncio.Task[_T]) -> None:
        if self._going_on.get(key) is task:
            del self._going_on[key]
        if not task.cancelled():
            task.exception()  # mark as seen: all who waited may have left
