"""The catalog feed of an ingress replica: follows the sync service by a long poll.

A replica that is new or was restarted catches up by itself, and the request path asks nobody.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pydantic import ValidationError
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.catalog_wire import NOWHERE, CatalogUpdate, Position, unpacked
from gateway.catalog import Catalog
from gateway.errors import InternalError
from gateway.ports import RegistryStatus, SyncReport

_logger = logging.getLogger(__name__)

_LONG_POLL_S = 5.0
_RETRY_S = 0.5
_CATCH_UP_S = 10.0


class RayCatalogFeed:
    """A `CatalogFeed` that follows the sync service.

    `take_used` gives the models that had requests here since it was last called, for the sync
    service to know which are idle.
    """

    def __init__(self, sync: DeploymentHandle[Any], take_used: Callable[[], list[str]]) -> None:
        self._sync = sync
        self._take_used = take_used
        self._catalog: Catalog | None = None
        self._position: Position = NOWHERE
        self._silent_since: float | None = None
        self._problem: str | None = None
        self._changed = asyncio.Condition()

    @property
    def catalog(self) -> Catalog | None:
        """See `CatalogFeed.catalog`."""
        return self._catalog

    @property
    def registry(self) -> RegistryStatus:
        """See `CatalogFeed.registry`."""
        since = self._silent_since
        silent = None if since is None else time.monotonic() - since
        return RegistryStatus(silent_for_s=silent, problem=self._problem)

    async def synchronize(self) -> SyncReport:
        """See `CatalogFeed.synchronize`."""
        try:
            report: SyncReport = await self._sync.synchronize.remote()
        except (RayError, RayServeException) as error:
            raise InternalError("The sync service does not answer.") from error
        if report.problem is None:
            await self._catch_up(report.generation)
        return report

    async def _catch_up(self, generation: int) -> None:
        """Have what the report is about before the caller looks for it, unless it takes long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CATCH_UP_S), self._changed:
                await self._changed.wait_for(lambda: self._generation >= generation)

    async def follow(self) -> None:
        """Replace the catalog whenever the sync service has a newer one; never returns."""
        while True:
            try:
                await self._follow_once()
            except (RayError, RayServeException) as error:
                _logger.warning("the sync service is away: %s", type(error).__name__)
                await asyncio.sleep(_RETRY_S)
            except ValidationError:
                # Of another release, in the middle of an upgrade: the next one may be of ours.
                _logger.exception("the sync service sent a catalog that can't be read")
                self._position = NOWHERE
                await asyncio.sleep(_RETRY_S)

    async def _follow_once(self) -> None:
        update, silent_for_s, problem = await self._sync.wait_for.remote(
            self._position, _LONG_POLL_S, self._take_used()
        )
        self._silent_since = None if silent_for_s is None else time.monotonic() - silent_for_s
        self._problem = problem
        if update is not None:
            await self._take(update)

    async def _take(self, update: CatalogUpdate) -> None:
        catalog = await unpacked(update, self._catalog)
        async with self._changed:
            self._catalog = catalog
            self._position = update["position"]
            self._changed.notify_all()
        _logger.info(
            "catalog %s: %s model(s), %s of them new or changed",
            catalog.generation,
            len(catalog.models),
            len(update["models"]),
        )

    @property
    def _generation(self) -> int:
        return -1 if self._catalog is None else self._catalog.generation
