"""Sending again what was lost on its way: exponential backoff with full jitter.

A replica that is killed takes the calls inside it along; Ray sends none of them again, because it
can't know whether that would do harm. Predictions and activations may be made twice. Where no
replica is left the handle itself waits for the next one (ray/serve/_private/router.py,
`route_and_send_request`), so what comes here are mostly the calls that were inside. Must not import
ray.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from random import Random
from typing import TypeVar

from deployments.backoff import Backoff
from deployments.serve.ports import CallLost, Loss

_logger = logging.getLogger(__name__)

_T = TypeVar("_T")

# Another try of what is busy or failed would end likewise.
_SENT_AGAIN = frozenset({Loss.INSIDE, Loss.NO_APPLICATION})

_PAUSES = Backoff(least_s=0.05, most_s=1.0)
# A version that ends each process that it reaches is suspended after three of them (see
# `deployments.model_replica.quarantine`). This is for those of its neighbours' calls that were
# lost with it, each time perhaps twice: once inside, and once because Ray didn't know yet.
_MOST_INSIDE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """When to send again.

    A call that kills whatever it reaches must not go on doing so until its deadline: after
    `most_inside` replicas went away with it, it isn't sent again. `clock` and `sleep` are in
    seconds.
    """

    most_inside: float
    pauses: Backoff = _PAUSES
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def again(self, send: Callable[[], Awaitable[_T]], lost: CallLost, *, until: float) -> _T:
        """Send once more what was lost, and again while that is lost too, until `until` (of the
        clock). Raises the last CallLost."""
        random = Random()  # noqa: S311 - no secret
        inside = failures = 0
        while True:
            failures += 1
            inside += lost.loss is Loss.INSIDE
            pause_s = self.pauses.pause_s(failures, random)
            late = self.clock() + pause_s >= until
            if lost.loss not in _SENT_AGAIN or inside >= self.most_inside or late:
                raise lost
            _logger.warning("a call is sent again: %s", lost)
            await self.sleep(pause_s)
            try:
                return await send()
            except CallLost as another:
                lost = another


PREDICTIONS = Retries(most_inside=_MOST_INSIDE)
"""Predictions are sent again, but not for ever."""

ACTIVATIONS = Retries(most_inside=inf)
"""To ask for an application is harmless however often, and who waits for it has a deadline."""
