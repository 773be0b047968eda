"""Sending again what was lost on its way: how often, how long, with what pauses.

Knows neither Ray nor what callers are told. Must not import ray.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import TypeVar

from deployments.backoff import Backoff

_logger = logging.getLogger(__name__)

_T = TypeVar("_T")


class Loss(Enum):
    """How a call was lost."""

    INSIDE = "its replica went away with it"
    UNSENT = "there was nobody to send it to"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resending:
    """When to send again.

    `errors` are those by which a loss may be told, `loss_of` tells it (None: no loss, another try
    would end likewise). A call that kills whatever it reaches must not go on doing so until its
    deadline: after `most_inside` replicas went away with it, it isn't sent again.
    """

    errors: tuple[type[Exception], ...]
    loss_of: Callable[[Exception], Loss | None]
    pauses: Backoff
    most_inside: float

    async def again(
        self, send: Callable[[], Awaitable[_T]], error: Exception, *, until: float
    ) -> _T:
        """Send once more what was lost with `error`, and again while that is lost too, until
        `until` (of the monotonic clock). Raises the last error."""
        random = Random()  # noqa: S311 - no secret
        inside = failures = 0
        while True:
            failures += 1
            loss = self.loss_of(error)
            inside += loss is Loss.INSIDE
            pause_s = self.pauses.pause_s(failures, random)
            late = time.monotonic() + pause_s >= until
            if loss is None or inside >= self.most_inside or late:
                raise error
            _logger.warning("a call is sent again: %s (%s)", loss.value, type(error).__name__)
            await asyncio.sleep(pause_s)
            try:
                return await send()
            except self.errors as another:
                error = another
