"""The ingress: the gateway's FastAPI application as a Serve deployment, and its catalog feed.

Each replica follows the sync service by a long poll, so that one that is new or was restarted
catches up by itself; the request path asks nobody.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import suppress
from typing import Any

from fastapi import FastAPI
from pydantic import ValidationError
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.backend import RayBackend
from deployments.logs import configure_logging
from deployments.settings import Settings
from gateway.catalog import Catalog
from gateway.errors import InternalError, ModelUnavailable
from gateway.http.app import HttpLimits, create_app
from gateway.ports import RegistryStatus, SyncReport
from gateway.prediction import PredictionService

_logger = logging.getLogger(__name__)

_LONG_POLL_S = 5.0
_RETRY_S = 0.5
_CATCH_UP_S = 10.0
_RETRY_AFTER_S = 2.0


class RayCatalogFeed:
    """A `CatalogFeed` that follows the sync service."""

    def __init__(self, sync: DeploymentHandle[Any]) -> None:
        self._sync = sync
        self._catalog: Catalog | None = None
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
                await asyncio.sleep(_RETRY_S)

    async def _follow_once(self) -> None:
        generation, content, silent_for_s, problem = await self._sync.wait_for.remote(
            self._generation, _LONG_POLL_S
        )
        self._silent_since = None if silent_for_s is None else time.monotonic() - silent_for_s
        self._problem = problem
        if content is None:
            return
        async with self._changed:
            self._catalog = Catalog.model_validate_json(content)
            self._changed.notify_all()
        _logger.info("catalog %s: %s model(s)", generation, len(self._catalog.models))

    @property
    def _generation(self) -> int:
        return -1 if self._catalog is None else self._catalog.generation


@serve.ingress()
class Ingress:
    """Takes every HTTP request: builds the gateway's application over Ray's side of its ports."""

    def __init__(
        self, settings: Settings, environment: dict[str, str], sync: DeploymentHandle[Any]
    ) -> None:
        os.environ.update(environment)
        configure_logging()
        self._settings = settings
        self._sync = sync
        self._feed = RayCatalogFeed(sync)
        self._following = asyncio.get_running_loop().create_task(self._feed.follow())

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Ray once the replica is constructed."""
        service = PredictionService(
            feed=self._feed,
            backend=RayBackend(self._activate),
            default_timeout_s=self._settings.request_timeout_s,
        )
        limits = HttpLimits(max_body_bytes=self._settings.max_body_bytes)
        return create_app(
            service=service,
            feed=self._feed,
            limits=limits,
            # Ray's RequestIdMiddleware answers with the id that it gave to or got from the caller.
            answers_request_id=False,
        )

    async def _activate(self, name: str, number: int) -> None:
        try:
            problem = await self._sync.activate.remote(name, number)
        except (RayError, RayServeException) as error:
            raise ModelUnavailable(
                "The model can't be started right now.", retry_after_s=_RETRY_AFTER_S
            ) from error
        if problem is not None:
            raise ModelUnavailable(problem, retry_after_s=_RETRY_AFTER_S)
