"""Versions of one model in one process: fetching, loading, calling. No Ray.

Travels to the replica by value (see `deployments.activation`), so that no package of ours is
imported there: a model may ship a package called `gateway`, and what is imported first wins. For
the same reason it imports nothing of ours, and start-up is little more than importing MLflow.
What goes in and out is plain: tuples, dicts, lists, strings and numpy arrays.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import logging
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import mlflow.pyfunc
from mlflow.pyfunc import PyFuncModel

from deployments.artifacts import fetch_artifacts
from deployments.host_news import HostJournal
from deployments.host_watch import HostWatch
from deployments.logs import LogOptions, fields
from deployments.model_input import model_input
from deployments.model_output import UnsupportedOutput, plain_output
from deployments.version_record import CALL, LOAD, VersionRecord

if TYPE_CHECKING:
    from deployments.call_tracing import CallTrace, CallTracer

_logger = logging.getLogger("modelmux.version_host")

_THREADS = 16
_LOADING_SWITCH_INTERVAL_S = 0.0002
_NOTE_USE_S = 1.0


class ModelRaised(Exception):
    """The model's own code raised, whatever it was: it is the cause."""


class LoadFailed(Exception):
    """A version can't be loaded; worth another try in `retry_after_s` seconds."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostSettings:
    """Where versions of `model` come from and go to; times in seconds.

    `record_folder` is where what went wrong with them is remembered (see `VersionRecord`),
    `news_to` the deployment and the application that are told what is loaded. `make_tracer` makes
    what traces calls of a model, None where tracing is off; it comes along, so that nothing of ours
    is imported for it.
    """

    model: str
    tracking_uri: str
    registry_uri: str
    artifact_folder: str
    record_folder: str
    max_loaded_versions: int
    retry_load_after_s: float = 30.0
    load_timeout_s: float = 300.0
    news_to: tuple[str, str] | None = None
    make_tracer: Callable[[str], CallTracer] | None = None
    logs: LogOptions = dataclasses.field(default_factory=LogOptions)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CallLimits:
    """When a call that has not begun is given up (`give_up_at`, of the monotonic clock), for how
    many seconds one that has begun may go on before it counts as hung, and the turn that it needs
    beside its version's own, if any. `trace` is the call's, where tracing is on."""

    give_up_at: float
    patience_s: float
    alone: threading.Lock | None = None
    trace: CallTrace | None = None


class LoadedVersion:
    """A model in memory. Calls are one at a time: most models are not thread-safe."""

    def __init__(self, key: str, model: PyFuncModel, watch: HostWatch) -> None:
        self.key = key
        self.model = model
        self._watch = watch
        self.used_at = time.monotonic()
        # Calls from the event loop wait here, so that of each version at most one waits in a
        # thread for the lock that is the rule.
        self._turn = asyncio.Lock()
        self._one_at_a_time = threading.Lock()

    async def predict(
        self,
        threads: ThreadPoolExecutor,
        frame: tuple[str, tuple[Any, ...], tuple[Any, ...]],
        params: Mapping[str, Any],
        limits: CallLimits,
    ) -> tuple[str, Any] | None:
        """Answer one frame, as a plain output; None where its turn didn't come in time. Raises
        UnsupportedOutput and ModelRaised.

        A caller who leaves while waiting costs nothing; one who leaves while the model computes
        does not let the next call in before that is done.
        """
        if not await self._take_turn(limits.give_up_at):
            return None
        try:
            call = asyncio.get_running_loop().run_in_executor(
                threads, self.predict_here, frame, params, limits
            )
        except RuntimeError:  # somebody has shut the threads down, and it wasn't us
            self._turn.release()
            self._watch.give_up("the threads that call models are gone")
            raise
        call.add_done_callback(self._end_turn)
        return await asyncio.shield(call)

    async def _take_turn(self, give_up_at: float) -> bool:
        if not self._turn.locked():
            return await self._turn.acquire()
        try:
            async with asyncio.timeout(give_up_at - time.monotonic()):
                return await self._turn.acquire()
        except TimeoutError:
            return False

    def predict_here(
        self,
        frame: tuple[str, tuple[Any, ...], tuple[Any, ...]],
        params: Mapping[str, Any],
        limits: CallLimits,
    ) -> tuple[str, Any] | None:
        """The same on the calling thread."""
        with contextlib.ExitStack() as turns:
            for turn in (limits.alone, self._one_at_a_time):
                if turn is None:
                    continue
                left_s = limits.give_up_at - time.monotonic()
                if left_s <= 0 or not turn.acquire(timeout=left_s):
                    return None
                turns.callback(turn.release)
            self._watch.begin_call(self.key, limits.patience_s)
            turns.callback(self._watch.end, self.key)
            if limits.trace is not None:
                turns.enter_context(limits.trace.running())
            return _answer(self.model, frame, params)

    def _end_turn(self, call: asyncio.Future[Any]) -> None:
        self._turn.release()
        if not call.cancelled():
            call.exception()  # mark as seen: its caller may have left


class VersionLoader:
    """Fetches and loads versions: one load per version however many wait; versions are fetched
    side by side and put into memory one after the other.

    A failure is remembered for a while, so that a broken version can't keep a machine busy.
    """

    def __init__(
        self,
        settings: HostSettings,
        threads: ThreadPoolExecutor,
        record: VersionRecord,
        watch: HostWatch,
        journal: HostJournal | None = None,
    ) -> None:
        self._settings = settings
        self._journal = journal or HostJournal(settings.model)
        self._threads = threads
        self._record = record
        self._watch = watch
        self._loading: dict[str, asyncio.Task[LoadedVersion]] = {}
        self._alive: weakref.WeakValueDictionary[str, LoadedVersion] = weakref.WeakValueDictionary()
        # Loading is not thread-safe. transformers' `from_pretrained` puts the whole process into
        # its meta-device context: of two loads at once both came out broken in 12 of 12 tries, and
        # every later one too. MLflow's models-from-code go through a module global, which two
        # loads at once swap. (transformers 5.23, MLflow 3.17; docs/decisions.)
        self._memory = threading.Lock()
        self._suspects = threading.Lock()

    def alone(self, key: str) -> threading.Lock | None:
        """The turn that a version needs beside its own where it may be what ends processes: with
        one of those at work at a time it shows which it is. None for all others."""
        return self._suspects if self._record.is_suspect(key) else None

    def loaded(self, key: str) -> LoadedVersion | None:
        """The version of that key if it is in memory; for any thread."""
        return self._alive.get(key)

    async def load(self, number: int, fingerprint: str) -> LoadedVersion:
        """The version in memory, loaded now unless it is still there; raises LoadFailed."""
        key = version_key(number, fingerprint)
        self.refuse_suspended(key)
        alive = self.loaded(key)
        if alive is not None:
            return alive
        task = self._loading.get(key)
        if task is None:
            task = asyncio.create_task(self._load(key, number, fingerprint))
            self._loading[key] = task
            task.add_done_callback(lambda _: self._loading.pop(key, None))
        return await asyncio.shield(task)

    def refuse_suspended(self, key: str) -> None:
        """Raise LoadFailed for a version that is not to be tried now."""
        left_s = self._record.suspended_for_s(key)
        if left_s:
            raise LoadFailed(left_s)

    async def _load(self, key: str, number: int, fingerprint: str) -> LoadedVersion:
        started = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            model = await loop.run_in_executor(
                self._threads, self._fetch_and_load, number, fingerprint
            )
        # A boundary: fetching and loading fail in as many ways as there are stores and models.
        except Exception as error:
            # No caller has a part in it, so its text may be told; it is what people need.
            text = "%s version %s can't be loaded: %s"
            where = fields(model=self._settings.model, version=number)
            reason = error.__cause__ if isinstance(error, ModelRaised) else error
            _logger.exception(text, self._settings.model, number, reason, extra=where)
            self._journal.note_failure(number, time.perf_counter() - started)
            raise LoadFailed(self._record.failed(key)) from error
        self._record.succeeded(key, LOAD)
        loaded = LoadedVersion(key, model, self._watch)
        self._alive[key] = loaded
        spent = time.perf_counter() - started
        self._journal.note_load(number, spent)
        # Out of memory it is once nothing holds it any more: neither the LRU nor a call.
        weakref.finalize(loaded, self._journal.note_eviction, number).atexit = False
        where = fields(model=self._settings.model, version=number)
        text = "%s version %s loaded in %.2f s"
        _logger.info(text, self._settings.model, number, spent, extra=where)
        return loaded

    def _fetch_and_load(self, number: int, fingerprint: str) -> PyFuncModel:
        folder = fetch_artifacts(
            self._settings.model,
            number,
            into=Path(self._settings.artifact_folder),
            fingerprint=fingerprint,
            tracking_uri=self._settings.tracking_uri,
            registry_uri=self._settings.registry_uri,
        )
        key = version_key(number, fingerprint)
        alone = self.alone(key) or contextlib.nullcontext()
        with alone, self._memory, _turns_often(), self._watch.loading(key), _whatever_it_raises():
            model: PyFuncModel = mlflow.pyfunc.load_model(str(folder))
        return model


@contextlib.contextmanager
def _whatever_it_raises() -> Iterator[None]:
    """What the model's own code raises comes as ModelRaised: out of a thread neither StopIteration
    nor CancelledError comes as what it is, and KeyboardInterrupt is not for this process."""
    try:
        yield
    except UnsupportedOutput:
        raise
    # A boundary: the model's own code may raise anything.
    except BaseException as error:
        raise ModelRaised from error


@contextlib.contextmanager
def _turns_often() -> Iterator[None]:
    """Make Python's threads take turns more often than every 5 ms.

    A load that computes keeps the interpreter, and a call of another version gives it away dozens
    of times (whenever NumPy does); each time it waited out the whole interval.
    """
    usual = sys.getswitchinterval()
    sys.setswitchinterval(_LOADING_SWITCH_INTERVAL_S)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


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
        """Have the version in memory: `("ok", None)` or `("load_failed", retry_after_s)`."""
        try:
            await self._loaded(number, fingerprint)
        except LoadFailed as failed:
            return ("load_failed", failed.retry_after_s)
        return ("ok", None)

    async def predict(
        self,
        number: int,
        fingerprint: str,
        frame: tuple[str, tuple[Any, ...], tuple[Any, ...]],
        params: Mapping[str, Any],
        load_timeout_s: float,
        timeout_s: float,
        patience_s: float,
        traceparent: str | None = None,
    ) -> tuple[str, Any]:
        """Answer one frame `(layout, names, columns)`, waiting for a load up to `load_timeout_s`,
        and for its turn until `timeout_s` have passed.

        One of `("ok", (output, timings_ms))`, `("loading", None)`, `("load_failed",
        retry_after_s)`, `("late", None)` where its turn didn't come in time, `("model_failed",
        None)` and `("unsupported_output", None)`; the reasons go to the log. A load that takes
        longer goes on. A model that takes longer than `patience_s` has hung. `traceparent` is the
        span that the call comes from, where it is traced.
        """
        if traceparent is None or self.tracer is None:
            return await self._predict(
                number, fingerprint, frame, params, load_timeout_s, timeout_s, patience_s
            )
        with self.tracer.call(traceparent, number, "handle") as trace:
            outcome = await self._predict(
                number, fingerprint, frame, params, load_timeout_s, timeout_s, patience_s, trace
            )
            trace.note_outcome(outcome[0])
            return outcome

    async def _predict(
        self,
        number: int,
        fingerprint: str,
        frame: tuple[str, tuple[Any, ...], tuple[Any, ...]],
        params: Mapping[str, Any],
        load_timeout_s: float,
        timeout_s: float,
        patience_s: float,
        trace: CallTrace | None = None,
    ) -> tuple[str, Any]:
        give_up_at = time.monotonic() + timeout_s
        started = time.perf_counter()
        self._record.refresh()
        try:
            async with asyncio.timeout(load_timeout_s):
                version = await self._loaded(number, fingerprint)
        except TimeoutError:
            return ("loading", None)
        except LoadFailed as failed:
            return ("load_failed", failed.retry_after_s)
        loaded = time.perf_counter()
        if trace is not None:
            trace.note_load(loaded - started)
        limits = self._limits(version, give_up_at, patience_s, trace)
        with _Outcome(self._model, number) as outcome:
            outcome.output = await version.predict(self._threads, frame, params, limits)
            if outcome.output is None:
                return ("late", None)
            self._record.succeeded(version.key, CALL)
        return outcome.told(load_s=loaded - started, model_s=time.perf_counter() - loaded)

    def predict_here(
        self,
        number: int,
        fingerprint: str,
        frame: tuple[str, tuple[Any, ...], tuple[Any, ...]],
        params: Mapping[str, Any],
        give_up_at: float,
        patience_s: float,
        traceparent: str | None = None,
    ) -> tuple[str, Any]:
        """The same on the calling thread, which is not the event loop's, of a version in memory.

        Beside the outcomes of `predict` there is `("absent", None)` where the version isn't in
        memory. `give_up_at` is of the monotonic clock, which all processes of a machine share.
        """
        if traceparent is None or self.tracer is None:
            return self._predict_here(number, fingerprint, frame, params, give_up_at, patience_s)
        with self.tracer.call(traceparent, number, "socket") as trace:
            outcome = self._predict_here(
                number, fingerprint, frame, params, give_up_at, patience_s, trace
            )
            trace.note_outcome(outcome[0])
            return outcome

    def _predict_here(
        self,
        number: int,
        fingerprint: str,
        frame: tuple[str, tuple[Any, ...], tuple[Any, ...]],
        params: Mapping[str, Any],
        give_up_at: float,
        patience_s: float,
        trace: CallTrace | None = None,
    ) -> tuple[str, Any]:
        self._record.refresh()
        key = version_key(number, fingerprint)
        version = self._loader.loaded(key)
        if version is None:
            return ("absent", None)
        try:
            self._loader.refuse_suspended(key)
        except LoadFailed as failed:
            return ("load_failed", failed.retry_after_s)
        self._note_use(version)
        started = time.perf_counter()
        limits = self._limits(version, give_up_at, patience_s, trace)
        with _Outcome(self._model, number) as outcome:
            outcome.output = version.predict_here(frame, params, limits)
            if outcome.output is None:
                return ("late", None)
            self._record.succeeded(version.key, CALL)
        return outcome.told(load_s=0.0, model_s=time.perf_counter() - started)

    def _limits(
        self,
        version: LoadedVersion,
        give_up_at: float,
        patience_s: float,
        trace: CallTrace | None,
    ) -> CallLimits:
        alone = self._loader.alone(version.key)
        return CallLimits(give_up_at=give_up_at, patience_s=patience_s, alone=alone, trace=trace)

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


def version_key(number: int, fingerprint: str) -> str:
    """A version's multiplexed model id: short, and another one for other artifacts."""
    return f"{number}-{hashlib.sha256(fingerprint.encode()).hexdigest()[:8]}"


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


def _answer(
    model: PyFuncModel,
    frame: tuple[str, tuple[Any, ...], tuple[Any, ...]],
    params: Mapping[str, Any],
) -> tuple[str, Any]:
    with _whatever_it_raises():
        return plain_output(model.predict(model_input(*frame), params=dict(params) or None))
