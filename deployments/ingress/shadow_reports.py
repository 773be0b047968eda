"""What shadows came to in an ingress replica, told to the sync service, which adds it all up.

Each report has a number, so that one of which nobody knows whether it arrived may be sent again,
and is counted once. Must not import ray.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping

from deployments.serve.ports import CallLost, ReplicaHandle
from deployments.shadow_report import ShadowReport
from gateway.attempt import Attempt
from gateway.shadow_figures import ShadowFigures

_logger = logging.getLogger(__name__)

_EVERY_S = 2.0
_PATIENCE_S = 10.0


class ShadowReports:
    """Tells what `take` gives, every two seconds where there is anything."""

    def __init__(
        self,
        sync: ReplicaHandle,
        take: Callable[[], Mapping[str, ShadowFigures]],
        *,
        every_s: float = _EVERY_S,
    ) -> None:
        self._sync = sync
        self._take = take
        self._every_s = every_s
        self._host = uuid.uuid4().hex
        self._number = 0
        self._untold: ShadowReport | None = None

    async def follow(self) -> None:
        """Tell for ever."""
        while True:
            await asyncio.sleep(self._every_s)
            with Attempt(_logger, "what shadows came to can't be told"):
                await self.tell()

    async def tell(self) -> None:
        """Tell what is there. What isn't taken is told again as it was, before anything else."""
        if self._untold is None:
            self._untold = self._next()
        if self._untold is None:
            return
        try:
            async with asyncio.timeout(_PATIENCE_S):
                is_taken = await self._sync.call("take_shadows", self._untold)
        except (CallLost, TimeoutError) as error:
            _logger.info("shadows' figures don't arrive: %s", str(error) or "too late")
        else:
            self._untold = None if is_taken else self._untold

    def _next(self) -> ShadowReport | None:
        figures = {name: each.model_dump(mode="json") for name, each in self._take().items()}
        if not figures:
            return None
        self._number += 1
        return ShadowReport(host=self._host, number=self._number, figures=figures)
