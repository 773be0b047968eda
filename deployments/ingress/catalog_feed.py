"""The catalog feed of an ingress replica: follows the sync service by a long poll.

A replica that is new or was restarted catches up by itself, and the request path asks nobody.
Must not import ray.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from deployments.catalog_updates import NOWHERE, Position, RegistryNews, moment_of, unpacked
from deployments.serve.ports import CallLost, ReplicaHandle
from gateway.attempt import Attempt
from gateway.catalog import Catalog, Moment
from gateway.errors import InternalError
from gateway.history import HistoryEntry
from gateway.ports import RegistryStatus, SyncReport
from gateway.shadow_figures import ShadowFigures

_logger = logging.getLogger(__name__)

_LONG_POLL_S = 5.0
# Of a replica that has no catalog: where there is none yet it should hear so, and say so.
_FIRST_POLL_S = 1.0
_LATE_S = 15.0
_RETRY_S = 0.5
_CATCH_UP_S = 10.0
_SYNCHRONIZE_S = 120.0
_HISTORY_S = 10.0
_AWAY = "The sync service does not answer."


class RayCatalogFeed:
    """A `CatalogFeed` that follows the sync service.

    `take_used` gives the models that had requests here since it was last called, for the sync
    service to know which are idle.
    """

    def __init__(self, sync: ReplicaHandle, take_used: Callable[[], list[str]]) -> None:
        self._sync = sync
        self._take_used = take_used
        self._catalog: Catalog | None = None
        self._sent: Catalog | None = None
        self._moment = Moment()
        self._position: Position = NOWHERE
        self._environments = ""
        self._silent_since: float | None = None
        self._problem: str | None = None
        self._snapshot_problem: str | None = None
        self._changed = asyncio.Condition()
        self._heard = asyncio.Event()

    @property
    def catalog(self) -> Catalog | None:
        """See `CatalogFeed.catalog`."""
        return self._catalog

    @property
    def registry(self) -> RegistryStatus:
        """See `CatalogFeed.registry`."""
        since = self._silent_since
        silent = None if since is None else time.monotonic() - since
        return RegistryStatus(
            silent_for_s=silent, problem=self._problem, snapshot_problem=self._snapshot_problem
        )

    async def synchronize(self) -> SyncReport:
        """See `CatalogFeed.synchronize`."""
        try:
            async with asyncio.timeout(_SYNCHRONIZE_S):
                report: SyncReport = await self._sync.call("synchronize")
        except (CallLost, TimeoutError) as error:
            raise InternalError(_AWAY) from error
        if report.problem is None:
            await self._catch_up(report.generation)
        return report

    async def history(self, name: str, *, limit: int) -> list[HistoryEntry]:
        """See `CatalogFeed.history`."""
        try:
            async with asyncio.timeout(_HISTORY_S):
                told = await self._sync.call("history", name, limit)
        except (CallLost, TimeoutError) as error:
            raise InternalError(_AWAY) from error
        return [HistoryEntry.model_validate(entry) for entry in told]

    async def shadow(self, name: str) -> ShadowFigures | None:
        """See `CatalogFeed.shadow`."""
        try:
            async with asyncio.timeout(_HISTORY_S):
                told = await self._sync.call("shadow", name)
        except (CallLost, TimeoutError) as error:
            raise InternalError(_AWAY) from error
        return None if told is None else ShadowFigures.model_validate(told)

    async def _catch_up(self, generation: int) -> None:
        """Have what the report is about before the caller looks for it, unless it takes long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CATCH_UP_S), self._changed:
                await self._changed.wait_for(lambda: self._generation >= generation)

    async def wait_for_news(self, *, timeout_s: float) -> None:
        """Until the sync service has answered once, be it that there is no catalog yet."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._heard.wait()

    async def follow(self) -> None:
        """Replace the catalog whenever the sync service has a newer one; never returns."""
        while True:
            # Whatever came (of another release, in the middle of an upgrade?), the next may be of
            # use, and a replica that stopped to follow would serve the past for ever.
            with Attempt(_logger, "the sync service sent a catalog that can't be read") as attempt:
                try:
                    await self._follow_once()
                except (CallLost, TimeoutError) as error:
                    _logger.warning("the sync service is away: %s", str(error) or "it is silent")
                    if self._heard.is_set():  # else it is still starting, as we are
                        self._problem = _AWAY
                    await asyncio.sleep(_RETRY_S)
            if attempt.has_failed:
                self._position = NOWHERE
                await asyncio.sleep(_RETRY_S)

    async def _follow_once(self) -> None:
        poll_s = _FIRST_POLL_S if self._catalog is None else _LONG_POLL_S
        # A replica that is lost with its machine hangs up on nobody.
        async with asyncio.timeout(poll_s + _LATE_S):
            news: RegistryNews = await self._sync.call(
                "wait_for", self._position, poll_s, self._take_used(), self._environments
            )
        silent_for_s = news["silent_for_s"]
        self._environments = news.get("environments_stamp", self._environments)
        self._silent_since = None if silent_for_s is None else time.monotonic() - silent_for_s
        self._problem = news["problem"]
        self._snapshot_problem = news["snapshot_problem"]
        if news["update"] is not None:
            self._sent = await unpacked(news["update"], self._sent)
        await self._take(news)
        self._heard.set()

    async def _take(self, news: RegistryNews) -> None:
        """Have the catalog that was sent be the current one, with what is the case now."""
        update, moment = news["update"], moment_of(news, before=self._moment)
        if self._sent is None or (update is None and moment == self._moment):
            return
        async with self._changed:
            self._catalog = self._sent.at(moment, earlier=self._catalog)
            self._moment = moment
            if update is not None:
                self._position = update["position"]
            self._changed.notify_all()
        if update is not None:
            _logger.info(
                "%s of %s models are new or have changed: catalog %s",
                len(update["models"]),
                len(self._catalog.models),
                self._catalog.generation,
            )

    @property
    def _generation(self) -> int:
        return -1 if self._catalog is None else self._catalog.generation
