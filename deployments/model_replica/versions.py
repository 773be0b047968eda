"""Versions of one model in one process: fetching, loading, calling. No Ray.

Travels to the replica by value (see `deployments.sync.activator`), so that no package of ours is
imported there: a model may ship a package called `gateway`, and what is imported first wins. For
the same reason it imports nothing of ours, and start-up is little more than importing MLflow.
What goes in and out is plain: tuples, dicts, lists, strings and numpy arrays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow

from deployments.logs import fields
from deployments.model_replica.call import ModelCall
from deployments.model_replica.crash_record import CALL, VersionRecord
from deployments.model_replica.load_events import HostJournal
from deployments.model_replica.loaded_version import CallLimits, LoadedVersion, ModelRaised
from deployments.model_replica.loader import (
    HostSettings,
    VersionLoader,
    VersionUnavailable,
    version_key,
)
from deployments.model_replica.output import UnsupportedOutput
from deployments.model_replica.watchdog import HostWatch

if TYPE_CHECKING:
    from deployments.model_replica.call_tracing import CallTrace

_logger = logging.getLogger("modelmux.version_host")

_THREADS = 16
_NOTE_USE_S = 1.0


Resident = Callable[[str], Awaitable[LoadedVersion]]
"""Keeps what was used last: takes a version's key, gives the version (Ray's multiplexed LRU)."""


class VersionHost:
    """Everything a replica does, without Ray: `keep` wraps a loading function into an LRU."""

    def __init__(
        self,
        settings: HostSettings,
        keep: Callable[[Callable[[str], Awaitable[LoadedVersion]]], Resident],
    ) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="version")
        self._model = settings.model
        self._record = VersionRecord(
            Path(settings.record_folder), retry_after_s=settings.retry_load_after_s
        )
        watch = HostWatch(self._record, load_timeout_s=settings.load_timeout_s)
        watch.start()
        self.journal = HostJournal(settings.model)
        self._loader = VersionLoader(settings, self._threads, self._record, watch, self.journal)
        self._versions: dict[str, tuple[int, str]] = {}
        self._resident = keep(self._take)
        self._loop = asyncio.get_running_loop()
        make_tracer = settings.make_tracer
        self.tracer = None if make_tracer is None else make_tracer(settings.model)
        mlflow.set_tracking_uri(settings.tracking_uri)
        mlflow.set_registry_uri(settings.registry_uri)

    async def load(self, number: int, fingerprint: str) -> tuple[str, Any]:
        """Have the version in memory: `("ok", None)`, or `("load_failed", retry_after_s)` or
        `("suspended", retry_after_s)`."""
        try:
            await self._loaded(number, fingerprint)
        except VersionUnavailable as unavailable:
            return unavailable.told()
        return ("ok", None)

    async def predict(self, call: ModelCall, load_timeout_s: float) -> tuple[str, Any]:
        """Answer a call, waiting for a load up to `load_timeout_s`.

        One of `("ok", (output, timings_ms))`, `("loading", None)`, `("load_failed",
        retry_after_s)`, `("suspended", retry_after_s)` where its calls ended their processes or
        hung, `("late", None)` where its turn didn't come in time, `("model_failed", None)` and
        `("unsupported_output", None)`; the reasons go to the log. A load that takes longer goes on.
        """
        with self._traced(call, "handle") as trace:
            outcome = await self._predict(call, load_timeout_s, trace)
            if trace is not None:
                trace.note_outcome(outcome[0])
            return outcome

    async def _predict(
        self, call: ModelCall, load_timeout_s: float, trace: CallTrace | None
    ) -> tuple[str, Any]:
        started = time.perf_counter()
        self._record.refresh()
        try:
            async with asyncio.timeout(load_timeout_s):
                version = await self._loaded(call.number, call.fingerprint)
        except TimeoutError:
            return ("loading", None)
        except VersionUnavailable as unavailable:
            return unavailable.told()
        loaded = time.perf_counter()
        if trace is not None:
            trace.note_load(loaded - started)
        limits = self._limits(version, call, trace)
        with _Outcome(self._model, call.number) as outcome:
            outcome.output = await version.predict(self._threads, call.frame, call.params, limits)
            if outcome.output is None:
                return ("late", None)
            self._record.succeeded(version.key, CALL)
        return outcome.told(load_s=loaded - started, model_s=time.perf_counter() - loaded)

    def predict_here(self, call: ModelCall) -> tuple[str, Any]:
        """The same on the calling thread, which is not the event loop's, of a version in memory.

        Beside the outcomes of `predict` there is `("absent", None)` where the version isn't in
        memory.
        """
        with self._traced(call, "socket") as trace:
            outcome = self._predict_here(call, trace)
            if trace is not None:
                trace.note_outcome(outcome[0])
            return outcome

    def _predict_here(self, call: ModelCall, trace: CallTrace | None) -> tuple[str, Any]:
        self._record.refresh()
        key = version_key(call.number, call.fingerprint)
        version = self._loader.loaded(key)
        if version is None:
            return ("absent", None)
        try:
            self._loader.refuse_suspended(key)
        except VersionUnavailable as unavailable:
            return unavailable.told()
        self._note_use(version)
        started = time.perf_counter()
        limits = self._limits(version, call, trace)
        with _Outcome(self._model, call.number) as outcome:
            outcome.output = version.predict_here(call.frame, call.params, limits)
            if outcome.output is None:
                return ("late", None)
            self._record.succeeded(version.key, CALL)
        return outcome.told(load_s=0.0, model_s=time.perf_counter() - started)

    def _traced(
        self, call: ModelCall, way: str
    ) -> contextlib.AbstractContextManager[CallTrace | None]:
        if call.traceparent is None or self.tracer is None:
            return contextlib.nullcontext()
        return self.tracer.call(call.traceparent, call.number, way)

    def _limits(
        self, version: LoadedVersion, call: ModelCall, trace: CallTrace | None
    ) -> CallLimits:
        return CallLimits(
            give_up_at=call.give_up_at,
            patience_s=call.patience_s,
            alone=self._loader.alone(version.key),
            trace=trace,
        )

    def _note_use(self, version: LoadedVersion) -> None:
        """Tell the LRU now and then, which is the event loop's."""
        now = time.monotonic()
        if now - version.used_at > _NOTE_USE_S:
            version.used_at = now
            asyncio.run_coroutine_threadsafe(self._keep(version.key), self._loop)

    async def _keep(self, key: str) -> None:
        await self._resident(key)

    async def _loaded(self, number: int, fingerprint: str) -> LoadedVersion:
        """Load first, by ourselves, and only then show the version to the LRU.

        Ray's LRU evicts before it loads and loads one at a time (ray/serve/multiplex.py): handed
        a version that is in memory already, it does neither for long.
        """
        key = version_key(number, fingerprint)
        self._versions[key] = (number, fingerprint)
        version = await self._loader.load(number, fingerprint)
        await self._resident(key)
        return version

    async def _take(self, key: str) -> LoadedVersion:
        return await self._loader.load(*self._versions[key])


class _Outcome:
    """What came of a call: takes what the model's own code raised for an outcome, and logs it,
    since only the log may tell."""

    def __init__(self, model: str, number: int) -> None:
        self.output: Any = None
        self._model = model
        self._number = number
        self._failure: tuple[str, Any] | None = None

    def __enter__(self) -> _Outcome:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, _trace: Any) -> bool:
        where = fields(model=self._model, version=self._number)
        if isinstance(error, UnsupportedOutput):
            _logger.error("%s version %s: %s", self._model, self._number, error, extra=where)
            self._failure = ("unsupported_output", None)
        elif isinstance(error, ModelRaised):
            text = "%s version %s failed on a request"
            _logger.error(text, self._model, self._number, exc_info=error, extra=where)
            self._failure = ("model_failed", None)
        return self._failure is not None

    def told(self, *, load_s: float, model_s: float) -> tuple[str, Any]:
        """The outcome, with where the time went."""
        return self._failure or (
            "ok",
            (self.output, {"load": load_s * 1e3, "model": model_s * 1e3}),
        )
