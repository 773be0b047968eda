"""Versions of one model, fetched and put into memory; what fails is remembered.

Travels to the replica by value with `deployments.model_replica.versions`, and like it imports
nothing else of ours."""

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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import mlflow.pyfunc
from mlflow.pyfunc import PyFuncModel

from deployments.logs import LogOptions, fields
from deployments.model_replica.artifacts import fetch_artifacts
from deployments.model_replica.crash_record import CALL, LOAD, VersionRecord
from deployments.model_replica.load_events import HostJournal
from deployments.model_replica.loaded_version import LoadedVersion, ModelRaised, whatever_it_raises
from deployments.model_replica.watchdog import HostWatch

if TYPE_CHECKING:
    from deployments.model_replica.call_tracing import CallTracer

_logger = logging.getLogger("modelmux.version_loader")

_LOADING_SWITCH_INTERVAL_S = 0.0002


class VersionUnavailable(Exception):
    """A version is not to be had now; worth another try in `retry_after_s` seconds."""

    kind: ClassVar[str]

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s

    def told(self) -> tuple[str, float]:
        """The outcome of a call of it."""
        return (self.kind, self.retry_after_s)


class LoadFailed(VersionUnavailable):
    """It can't be loaded."""

    kind = "load_failed"


class VersionSuspended(VersionUnavailable):
    """It can be loaded, but its calls ended their processes or hung."""

    kind = "suspended"


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
        """The version in memory, loaded now unless it is still there; raises VersionUnavailable."""
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
        """Raise VersionUnavailable for a version that is not to be tried now."""
        left_s = self._record.suspended_for_s(key)
        if left_s and self._record.suspended_for(key) == CALL:
            raise VersionSuspended(left_s)
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
        with alone, self._memory, _turns_often(), self._watch.loading(key), whatever_it_raises():
            model: PyFuncModel = mlflow.pyfunc.load_model(str(folder))
        return model


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


def version_key(number: int, fingerprint: str) -> str:
    """A version's multiplexed model id: short, and another one for other artifacts."""
    return f"{number}-{hashlib.sha256(fingerprint.encode()).hexdigest()[:8]}"
