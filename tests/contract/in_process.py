"""A prediction backend in this process: the replica's own `Supervisor` per model, without Ray."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

from deployments.environments.planner import EnvironmentSettings
from deployments.model_calls.outcomes import (
    answered_by_replica,
    call_result,
    packed,
    streamed,
)
from deployments.model_replica.host_settings import HostSettings
from deployments.model_replica.processes import Processes
from deployments.model_replica.residents import Keep, Resident
from deployments.model_replica.supervisor import Supervisor
from deployments.model_replica.version_process import VersionId
from gateway.ports import Call, CallResult


class InProcessBackend:
    """Fulfils `PredictionBackend`, on whatever loop; supervisors are made on the first call of a
    model, and share their templates, on a loop of their own."""

    def __init__(self, tracking_uri: str, folder: Path, *, load_timeout_s: float = 300.0) -> None:
        self._tracking_uri = tracking_uri
        self._folder = folder
        self._load_timeout_s = load_timeout_s
        self._processes: Processes | None = None
        self._supervisors: dict[str, Supervisor] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    async def call(self, call: Call) -> CallResult:
        """See `PredictionBackend.call`."""
        calling = asyncio.run_coroutine_threadsafe(self._call(call), self._loop)
        return await asyncio.wrap_future(calling)

    def close(self) -> None:
        """End all processes."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _call(self, call: Call) -> CallResult:
        outcome = await self._supervisor_of(call).call(
            VersionId.of(call.model, call.version, aside=call.aside),
            packed(call),
            load_timeout_s=call.deadline.share(0.9).left_s(),
            give_up_at=call.deadline.at_s,
        )
        answer, _, load_s = answered_by_replica(outcome)
        return call_result(answer, load_s=load_s)

    async def stream(self, call: Call) -> AsyncGenerator[CallResult]:
        """See `StreamingBackend.stream`."""
        pieces = self._stream(call)
        try:
            while True:
                coming = asyncio.run_coroutine_threadsafe(_next(pieces), self._loop)
                piece = await asyncio.wrap_future(coming)
                if piece is None:
                    return
                yield piece
        finally:
            asyncio.run_coroutine_threadsafe(_closed(pieces), self._loop)

    async def _stream(self, call: Call) -> AsyncGenerator[CallResult]:
        outcomes = self._supervisor_of(call).stream(
            VersionId.of(call.model, call.version, aside=call.aside),
            packed(call, streams=True),
            load_timeout_s=call.deadline.share(0.9).left_s(),
            give_up_at=call.deadline.at_s,
        )
        async with aclosing(outcomes):
            async for outcome in outcomes:
                piece = streamed(answered_by_replica(outcome)[0])
                if piece is None:
                    return
                yield piece

    def _supervisor_of(self, call: Call) -> Supervisor:
        name = call.model.name
        if name not in self._supervisors:
            self._supervisors[name] = self._supervisor(call.model.options.max_loaded_versions)
        return self._supervisors[name]

    async def _close(self) -> None:
        for supervisor in self._supervisors.values():
            await supervisor.close()

    def _supervisor(self, size: int) -> Supervisor:
        if self._processes is None:
            self._processes = Processes()
        settings = HostSettings(
            tracking_uri=self._tracking_uri,
            registry_uri=self._tracking_uri,
            artifact_folder=str(self._folder),
            max_loaded_versions=size,
            load_timeout_s=self._load_timeout_s,
            environments=EnvironmentSettings(folder=str(self._folder / "environments")),
        )
        return Supervisor(
            settings, keep=lambda take: kept_by_use(take, size), processes=self._processes
        )


async def _next(pieces: AsyncGenerator[CallResult]) -> CallResult | None:
    return await anext(pieces, None)


async def _closed(pieces: AsyncGenerator[CallResult]) -> None:
    await pieces.aclose()


def kept_by_use(take: Callable[[str], Awaitable[Resident]], size: int) -> Keep:
    """An LRU as Ray's is."""
    kept: OrderedDict[str, Resident] = OrderedDict()

    async def resident(key: str) -> Resident:
        if key not in kept:
            kept[key] = await take(key)
        kept.move_to_end(key)
        while len(kept) > size:
            kept.popitem(last=False)
        return kept[key]

    return resident
