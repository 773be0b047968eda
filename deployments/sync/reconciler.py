"""Bringing applications in line with what is wanted of them: one task each, awaited by nobody.

An application that can't be placed takes minutes to fail, and none other waits for that. Asyncio
only; must not import ray.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

from deployments.backoff import Backoff

_logger = logging.getLogger(__name__)

# Below the five minutes after which Ray's autoscaler takes an idle machine away: one that was
# added for an application is met by a trial.
_PAUSES = Backoff(least_s=10.0, most_s=240.0)

SLOW_AFTER_S = 10.0
"""After how many seconds an adjustment that goes on is worth a word; most take one or two."""

_SLOW = "It takes long to start its processes."
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


@dataclass(slots=True, kw_only=True)
class _Adjustment:
    """`situation` is what the task goes by, `trying_since` None while it pauses."""

    situation: object
    trying_since: float | None = None
    problem: str | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Adjustments:
    """Runs `adjust(name)` for each application that is to be seen to, one at a time per name.

    `adjust` goes by whatever is wanted when it is called. Where it raises ActivationFailed it is
    called again after growing pauses, and at once where the situation is another. `clock` gives
    seconds.
    """

    def __init__(
        self,
        adjust: Callable[[str], Awaitable[None]],
        *,
        pauses: Backoff = _PAUSES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._adjust = adjust
        self._pauses = pauses
        self._clock = clock
        self._random = Random()  # noqa: S311 - no secret
        self._going_on: dict[str, _Adjustment] = {}

    def is_going_on(self, name: str) -> bool:
        """Whether that application is being adjusted, or waits to be tried again."""
        return name in self._going_on

    def see_to(self, name: str, situation: object) -> None:
        """Have that application adjusted; returns at once. `situation` is all that a trial depends
        on: as long as it is equal to the last one, an adjustment that goes on is left alone."""
        this = self._going_on.get(name)
        if this is None:
            this = self._going_on[name] = _Adjustment(situation=situation)
            this.task = asyncio.get_running_loop().create_task(self._keep_at(name, this))
        elif this.situation != situation:
            this.situation = situation
            this.changed.set()

    def problems(self) -> dict[str, str]:
        """What keeps applications from being as they should, by their names: sentences for
        people."""
        told = {name: self._problem(this) for name, this in self._going_on.items()}
        return {name: problem for name, problem in told.items() if problem is not None}

    def _problem(self, this: _Adjustment) -> str | None:
        if this.problem is not None or this.trying_since is None:
            return this.problem
        return _SLOW if self._clock() - this.trying_since >= SLOW_AFTER_S else None

    async def _keep_at(self, name: str, this: _Adjustment) -> None:
        failures = 0
        try:
            while True:
                this.changed.clear()
                failure = await self._failure(name, this)
                if failure is not None:
                    failures += 1
                    await self._pause(name, this, failure, failures)
                elif not this.changed.is_set():
                    return
                if this.changed.is_set():
                    this.problem, failures = None, 0
        finally:
            del self._going_on[name]

    async def _failure(self, name: str, this: _Adjustment) -> ActivationFailed | None:
        """What comes of one trial, None where it went well."""
        this.trying_since = self._clock()
        try:
            await self._adjust(name)
        except ActivationFailed as failed:
            return failed
        # A boundary: whatever goes wrong with Serve, the next trial must come.
        except Exception:
            _logger.exception("application %s can't be brought in line with the catalog", name)
            return ActivationFailed(_BROKEN)
        finally:
            this.trying_since = None
        return None

    async def _pause(
        self, name: str, this: _Adjustment, failure: ActivationFailed, failures: int
    ) -> None:
        """Until the next trial is due, or the situation is another."""
        again = not isinstance(failure, TakenBack)
        this.problem = f"{failure.reason} {_AGAIN}" if again else failure.reason
        _logger.warning("application %s: %s", name, this.problem)
        pause_s = self._pauses.pause_s(failures, self._random) if again else None
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await this.changed.wait()
