"""Which applications of models are idle, and since when: who sleeps first where there is no room.

Ingress replicas tell with each long poll which models had a request inside since the last one. An
application of which nothing was heard for longer than two polls is idle. Must not import ray.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping

from gateway.catalog import ModelOptions

IDLE_AFTER_S = 11.0
"""Above twice the feed's long poll (`deployments.ingress.catalog_feed`)."""

_OF_ONE_VERSION = re.compile(r"-v\d+-[0-9a-f]{8}$")


class Idleness:
    """When each model was last in use, by the name of its application."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._used_at: dict[str, float] = {}

    def note_use(self, applications: Iterable[str]) -> None:
        """These are in use now; an application of one version stands for its model."""
        now = self._clock()
        for name in applications:
            self._used_at[_OF_ONE_VERSION.sub("", name)] = now

    def longest_idle(self, active: Mapping[str, ModelOptions | None]) -> str | None:
        """The application that may sleep and was not used for the longest time; None if none may.

        Those of models that want a replica always may not, and neither may one whose options are
        not known yet.
        """
        may_sleep = [n for n, options in active.items() if options and not options.min_replicas]
        name = min(may_sleep, key=self._last_use, default=None)
        if name is None or self._clock() - self._last_use(name) < IDLE_AFTER_S:
            return None
        return name

    def _last_use(self, name: str) -> float:
        return self._used_at.get(_OF_ONE_VERSION.sub("", name), 0.0)
