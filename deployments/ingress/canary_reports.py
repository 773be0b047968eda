"""What an ingress replica has counted of canaries, told to the sync service, which stops them.

Soon after a request, and again now and then: a sync service that was restarted knows nothing. All
of it is told each time, so that nothing counts twice. Must not import ray.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from contextlib import suppress

from deployments.serve.ports import CallLost, ReplicaHandle
from gateway.attempt import Attempt
from gateway.canary import Trials
from gateway.catalog import Catalog

_logger = logging.getLogger(__name__)

_PAUSE_S = 1.0
_AGAIN_S = 10.0
_PATIENCE_S = 10.0


class CanaryReports:
    """Tells `trials`, of what the current `catalog` has; the pauses are in seconds."""

    def __init__(
        self,
        sync: ReplicaHandle,
        trials: Trials,
        catalog: Callable[[], Catalog | None],
        *,
        pause_s: float = _PAUSE_S,
        again_s: float = _AGAIN_S,
    ) -> None:
        self._sync = sync
        self._trials = trials
        self._catalog = catalog
        self._pause_s = pause_s
        self._again_s = again_s
        # Of this process: another one begins to count anew.
        self._replica = uuid.uuid4().hex

    async def follow(self) -> None:
        """Tell for ever."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._again_s):
                    await self._trials.news.wait()
            self._trials.news.clear()
            # Whatever goes wrong with one report, the next one tells all of it.
            with Attempt(_logger, "the sync service can't be told of canaries"):
                try:
                    await self._tell()
                except (CallLost, TimeoutError):
                    _logger.warning("the sync service isn't told of canaries: it does not answer")
            await asyncio.sleep(self._pause_s)

    async def _tell(self) -> None:
        catalog = self._catalog()
        if catalog is None or not self._trials.counts():
            return
        canaries = (model.canary for model in catalog.models.values())
        self._trials.forget_all_but({each.trial for each in canaries if each is not None})
        async with asyncio.timeout(_PATIENCE_S):
            await self._sync.call("note_trials", self._replica, self._trials.counts())
