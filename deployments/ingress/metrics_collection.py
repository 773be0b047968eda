"""Collecting metrics for `/metrics`: from all ingress replicas, and the sync service.

They are asked when somebody scrapes, and answer with what they have at that moment; nothing is sent
around between scrapes. See docs/decisions/0024 for why each replica has series of its own.
Must not import ray.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from deployments.serve.ports import CallLost, ReplicaHandle
from gateway.metrics.collection import Measured
from gateway.metrics.families import Reading

_logger = logging.getLogger(__name__)

# Prometheus waits for 10 s by default. What isn't there by then is missing in this scrape only.
_PATIENCE_S = 3.0


class RayMeasurements:
    """A `Measurements` over the handles of the ingress' own deployment and of the sync service.

    `own` gives the id and the reading of this replica, which needs nobody's answer.
    """

    def __init__(
        self,
        *,
        replicas: ReplicaHandle,
        sync: ReplicaHandle,
        own: Callable[[], tuple[str, Reading]],
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._replicas = replicas
        self._sync = sync
        self._own = own
        self._patience_s = patience_s

    async def measured(self) -> Measured:
        """See `Measurements.measured`."""
        others, sync = await asyncio.gather(self._ask_replicas(), self._ask_sync())
        name, reading = self._own()
        return Measured(replicas={**others, name: reading}, sync=sync)

    async def _ask_replicas(self) -> dict[str, Reading]:
        try:
            async with asyncio.timeout(self._patience_s):
                answers = await self._replicas.broadcast("reading")
        except (CallLost, TimeoutError) as error:
            _logger.warning("the ingress replicas can't be asked: %s", str(error) or "too late")
            return {}
        return dict(answer for answer in answers if not isinstance(answer, CallLost))

    async def _ask_sync(self) -> Reading | None:
        try:
            async with asyncio.timeout(self._patience_s):
                reading: Reading = await self._sync.call("reading")
        except (CallLost, TimeoutError) as error:
            _logger.warning("the sync service can't be asked: %s", str(error) or "too late")
            return None
        return reading
