"""Where `/metrics` gets everybody's numbers: from all ingress replicas, and the sync service.

They are asked when somebody scrapes, and answer with what they have at that moment; nothing is sent
around between scrapes. See docs/decisions/0024 for why each replica has series of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.model_calls.lost_calls import HANDLE_ERRORS
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
        self, sync: DeploymentHandle[Any], *, own: Callable[[], tuple[str, Reading]]
    ) -> None:
        self._sync = sync
        self._own = own
        self._replicas: DeploymentHandle[Any] | None = None

    async def measured(self) -> Measured:
        """See `Measurements.measured`."""
        others, sync = await asyncio.gather(self._ask_replicas(), self._ask_sync())
        name, reading = self._own()
        return Measured(replicas={**others, name: reading}, sync=sync)

    async def _ask_replicas(self) -> dict[str, Reading]:
        if self._replicas is None:
            here = serve.get_replica_context()
            self._replicas = serve.get_deployment_handle(here.deployment, here.app_name)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                answers = await self._replicas.broadcast("reading").results_async(
                    return_exceptions=True
                )
        except (*HANDLE_ERRORS, TimeoutError) as error:
            _logger.warning("the ingress replicas can't be asked: %s", type(error).__name__)
            return {}
        return dict(answer for answer in answers if not isinstance(answer, BaseException))

    async def _ask_sync(self) -> Reading | None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                reading: Reading = await self._sync.reading.remote()
        except (*HANDLE_ERRORS, TimeoutError) as error:
            _logger.warning("the sync service can't be asked: %s", type(error).__name__)
            return None
        return reading
