"""Bringing an application in line with what is wanted of it, by a task that nobody awaits.

An application that can't be placed takes minutes to fail, and none other waits for that. Asyncio
only; must not import ray.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from random import Random

from deployments.backoff import Backoff
from gateway.attempt import Attempt

_logger = logging.getLogger(__name__)

# Below the five minutes after which Ray's autoscaler takes an idle machine away: one that was
# added for an application is met by a trial.
PAUSES = Backoff(least_s=10.0, most_s=240.0)

SLOW_AFTER_S = 10.0
"""After how many seconds an adjustment that goes on is worth a word; most take one or two."""

SLOW = "It takes long to start its processes."
"""What is said then."""

_BROKEN = "Serve can't be asked to start its processes; the log says why."
_AGAIN = "It is tried again by itself."


class ActivationFailed(Exception):
    """An application did not come up; `reason` is one sentence meant for people."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TakenBack(ActivationFailed):
    """What is wanted of a running application can't be had, and it runs as before. Not tried again
    as long as the same is wanted: each trial takes down what answers."""


class Adjustment:
    """Has one application brought in line, by `adjust`, whenever there is something to adjust.

    `adjust` goes by whatever is wanted when it is called. Where it raises ActivationFailed it is
    called again after growing pauses, and at once where the situation is another. `clock` gives
    seconds.
    """

    def __init__(
        self,
        name: str,
        adjust: Callable[[], Awaitable[None]],
        *,
        pauses: Backoff = PAUSES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._adjust = adjust
        self._pauses = pauses
        self._clock = clock
        self._random = Random()  # noqa: S311 - no secret
        self._task: asyncio.Task[None] | None = None
        self._situation: object = None
        self._changed = asyncio.Event()
        self._trying_since: float | None = None
        self._problem: str | None = None

    @property
    def is_going_on(self) -> bool:
        """Whether the application is being adjusted, or waits to be tried again."""
        return self._task is not None

    @property
    def problem(self) -> str | None:
        """What keeps the application from being as it should: a sentence for people."""
        if self._problem is not None or self._trying_since is None:
            return self._problem
        return SLOW if self._clock() - self._trying_since >= SLOW_AFTER_S else None

    def see_to(self, situation: object) -> None:
        """Have the application adjusted; returns at once. `situation` is all that a trial depends
        on: as long as it is equal to the last one, an adjustment that goes on is left alone."""
        if self._task is None:
            self._situation = situation
            self._task = asyncio.get_running_loop().create_task(
                self._keep_at_it(), context=Context()
            )
        elif self._situation != situation:
            self._situation = situation
            self._changed.set()

    async def _keep_at_it(self) -> None:
        failures = 0
        try:
            while True:
                self._changed.clear()
                failure = await self._failure()
                if failure is not None:
                    failures += 1
                    await self._pause(failure, failures)
                elif not self._changed.is_set():
                    return
                if self._changed.is_set():
                    self._problem, failures = None, 0
        finally:
            self._task = self._problem = None

    async def _failure(self) -> ActivationFailed | None:
        """What comes of one trial, None where it went well."""
        self._trying_since = self._clock()
        broken = "application %s can't be brought in line with the catalog"
        # Whatever goes wrong with Serve, the next trial must come.
        with Attempt(_logger, broken, self._name) as attempt:
            try:
                await self._adjust()
            except ActivationFailed as failed:
                return failed
            finally:
                self._trying_since = None
        return ActivationFailed(_BROKEN) if attempt.has_failed else None

    async def _pause(self, failure: ActivationFailed, failures: int) -> None:
        """Until the next trial is due, or the situation is another."""
        again = not isinstance(failure, TakenBack)
        self._problem = f"{failure.reason} {_AGAIN}" if again else failure.reason
        _logger.warning("application %s: %s", self._name, self._problem)
        pause_s = self._pauses.pause_s(failures, self._random) if again else None
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._changed.wait()
