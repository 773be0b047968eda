"""The Ray Serve deployment of one registered model: a `VersionHost` behind a handle.

Travels to the replica by value, like `deployments.model_replica.versions`, and imports nothing else
of ours. Ray's `@serve.multiplexed` keeps the LRU of loaded versions and tells the router which
replica has which (https://docs.ray.io/en/latest/serve/model-multiplexing.html)."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.logs import configure_logging
from deployments.model_replica.call import ModelCall
from deployments.model_replica.loaded_version import LoadedVersion
from deployments.model_replica.loader import HostSettings
from deployments.model_replica.socket_server import ModelSocket, is_supported
from deployments.model_replica.versions import Resident, VersionHost
from deployments.serve.replica_ports import listen_for_no_http, listen_on_own_address

_logger = logging.getLogger("modelmux.model_host")

_CLOSE_TIMEOUT_S = 15.0
_LAST_SPANS_S = 2.0
_TELL_S = 1.0
_TELL_ANYWAY_S = 10.0
_TELL_TIMEOUT_S = 5.0


class ModelHost:
    """Answers for all versions of one model; its methods take and give plain values only."""

    _socket: ModelSocket | None = None

    def __init__(self, settings: HostSettings) -> None:
        listen_on_own_address()
        listen_for_no_http()
        configure_logging(settings.logs, "modelmux")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # nobody watches them here
        self._host = VersionHost(settings, keep=_ray_lru(settings.max_loaded_versions))
        if is_supported():
            self._socket = ModelSocket(self._predict_here)
        if settings.news_to is not None:
            self._telling = asyncio.create_task(self._tell(*settings.news_to))

    def __del__(self) -> None:
        """Called by Ray when all calls by handle are answered: have those by the socket answered,
        too."""
        if self._socket is not None:
            self._socket.close(timeout_s=_CLOSE_TIMEOUT_S)
        if self._host.tracer is not None:
            self._host.tracer.close(timeout_s=_LAST_SPANS_S)

    async def attend(self, stay_s: float) -> str | None:
        """The name of this replica's socket, None where there are none, after `stay_s` seconds.

        Ray doesn't see the calls that come by the socket. While they come, one of these is on its
        way all the time: a replica that isn't idle, then, and one that Ray still sends calls to.
        """
        await asyncio.sleep(stay_s)
        return None if self._socket is None else self._socket.name

    async def _tell(self, deployment: str, application: str) -> None:
        """Tell what is loaded whenever that changes, and now and then that this process is there;
        never returns. Nothing waits for it: who is away hears it later."""
        journal, told_at = self._host.journal, 0.0
        handle: DeploymentHandle[Any] | None = None
        while True:
            await asyncio.sleep(_TELL_S)
            is_time = time.monotonic() - told_at >= _TELL_ANYWAY_S
            if not journal.has_events and not (is_time and journal.has_loaded):
                continue
            news, told_at = journal.news(), time.monotonic()
            try:
                async with asyncio.timeout(_TELL_TIMEOUT_S):
                    handle = handle or serve.get_deployment_handle(deployment, application)
                    await handle.take_news.remote(news)
            # A boundary: nobody waits for this task, and what is told next may arrive.
            except Exception as error:  # noqa: BLE001 - the sync service may be away for a while
                _logger.info("news of %s don't arrive: %s", journal.model, type(error).__name__)
                continue
            journal.take(news)

    async def load(self, number: int, fingerprint: str) -> tuple[str, Any]:
        """See `VersionHost.load`."""
        return await self._host.load(number, fingerprint)

    async def predict(
        self, call: tuple[Any, ...], load_timeout_s: float, timeout_s: float
    ) -> tuple[str, Any]:
        """See `VersionHost.predict`; `call` is the tuple of a `ModelCall` that is given up in
        `timeout_s` seconds, since it may come from a machine with another clock."""
        give_up_at = time.monotonic() + timeout_s
        return await self._host.predict(
            ModelCall(*call)._replace(give_up_at=give_up_at), load_timeout_s
        )

    def _predict_here(self, *call: Any) -> tuple[str, Any]:
        return self._host.predict_here(ModelCall(*call))


def _ray_lru(size: int) -> Callable[[Resident], Resident]:
    """Ray's LRU of `size` versions around a loading function.

    The decorator keeps its state on the function it wraps, so each host wraps one of its own.
    """

    def keep(take: Resident) -> Resident:
        async def resident(key: str) -> LoadedVersion:
            return await take(key)

        kept: Resident = serve.multiplexed(max_num_models_per_replica=size)(resident)
        return kept

    return keep
