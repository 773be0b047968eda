"""The Ray Serve deployment of registered models, of one or of many: a `Supervisor` behind a handle.

Ray's `@serve.multiplexed` keeps the LRU of loaded versions and tells the router which replica has
which (https://docs.ray.io/en/latest/serve/model-multiplexing.html).
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from ray import serve

from deployments.logs import configure_logging
from deployments.model_replica.host_settings import HostSettings
from deployments.model_replica.residents import Keep, Resident
from deployments.model_replica.supervisor import Supervisor
from deployments.model_replica.version_process import VersionId
from deployments.serve.handles import RayHandle, replica_handle
from deployments.serve.ports import CallLost
from deployments.serve.replica_ports import listen_for_no_http, listen_on_own_address
from deployments.serve.spare_worker import have_spare_worker

_logger = logging.getLogger("modelmux.model_replica")

_TELL_S = 1.0
_TELL_ANYWAY_S = 10.0
_TELL_TIMEOUT_S = 5.0


class ModelHost:
    """Answers for all versions of the models that its application has."""

    def __init__(self, settings: HostSettings) -> None:
        listen_on_own_address()
        listen_for_no_http()
        configure_logging(settings.logs, "modelmux")
        self._name = uuid.uuid4().hex
        sharing, size = settings.sharing, settings.max_loaded_versions
        is_alone = sharing is not None and sharing.replicas == 1
        self._supervisor = Supervisor(settings, keep=_untold if is_alone else _ray_lru(size))
        if settings.spare_worker:  # which this replica may have been until now
            self._sparing = asyncio.create_task(have_spare_worker())
        if settings.events_to is not None:
            self._telling = asyncio.create_task(self._tell(*settings.events_to))

    async def __del__(self) -> None:
        """Called by Ray when all calls by handle are answered: have those by sockets answered, too,
        and end all processes."""
        await self._supervisor.close()

    async def attend(self, stay_s: float) -> str:
        """A name of this replica's own, after `stay_s` seconds.

        Ray doesn't see the calls that go to processes directly. While they do, one of these is on
        its way all the time: a replica that isn't idle, then, and one that Ray still sends calls
        to.
        """
        await asyncio.sleep(stay_s)
        return self._name

    async def load(self, version: VersionId) -> tuple[str, Any]:
        """See `Supervisor.load`."""
        return await self._supervisor.load(version)

    async def call(
        self, version: VersionId, message: bytes, load_timeout_s: float, timeout_s: float
    ) -> tuple[str, Any]:
        """See `Supervisor.call`; the call is given up in `timeout_s` seconds, since it may come
        from a machine with another clock."""
        return await self._supervisor.call(
            version,
            message,
            load_timeout_s=load_timeout_s,
            give_up_at=time.monotonic() + timeout_s,
        )

    async def stream(
        self, version: VersionId, message: bytes, load_timeout_s: float, timeout_s: float
    ) -> AsyncGenerator[tuple[str, Any]]:
        """See `Supervisor.stream`, and `call`."""
        outcomes = self._supervisor.stream(
            version,
            message,
            load_timeout_s=load_timeout_s,
            give_up_at=time.monotonic() + timeout_s,
        )
        async with aclosing(outcomes):
            async for outcome in outcomes:
                yield outcome

    async def _tell(self, deployment: str, application: str) -> None:
        """Tell what is loaded whenever that changes, and now and then that this process is there;
        never returns. Nothing waits for it: who is away hears it later."""
        events, told_at = self._supervisor.events, 0.0
        handle: RayHandle | None = None
        while True:
            await asyncio.sleep(_TELL_S)
            is_time = time.monotonic() - told_at >= _TELL_ANYWAY_S
            if not events.has_events and not (is_time and events.has_loaded):
                continue
            untold, told_at = events.untold(), time.monotonic()
            try:
                async with asyncio.timeout(_TELL_TIMEOUT_S):
                    handle = handle or replica_handle(deployment, application)
                    await handle.call("take_news", untold)
            except (CallLost, TimeoutError) as error:  # the sync service may be away for a while
                _logger.info("load events don't arrive: %s", type(error).__name__)
                continue
            events.take(untold)


def _untold(take: Callable[[str], Awaitable[Resident]]) -> Keep:
    """Nothing is kept: the memory budget says who goes, and of one replica Ray's router needs to
    know nothing. Ray would count each version ten times a second."""

    async def resident(key: str) -> Resident:
        return Resident(lambda: None)

    return resident


def _ray_lru(size: int) -> Callable[[Callable[[str], Awaitable[Resident]]], Keep]:
    """Ray's LRU of `size` versions.

    The decorator keeps its state on the function it wraps, so each replica wraps one of its own.
    """

    def keep(take: Callable[[str], Awaitable[Resident]]) -> Keep:
        async def resident(key: str) -> Resident:
            return await take(key)

        kept: Keep = serve.multiplexed(max_num_models_per_replica=size)(resident)
        return kept

    return keep
