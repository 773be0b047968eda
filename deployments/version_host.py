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
import os
import shutil
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import mlflow.artifacts
import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.pyfunc import PyFuncModel

from deployments.host_watch import HostWatch
from deployments.model_output import UnsupportedOutput, plain_output
from deployments.version_record import CALL, LOAD, VersionRecord

_logger = logging.getLogger("modelmux.version_host")

_THREADS = 16
_INDEXES = 128
_LOADING_SWITCH_INTERVAL_S = 0.0002


class ModelRaised(Exception):
    """The model's own code raised, whatever it was: it is the cause."""


class TooLate(Exception):
    """The call's deadline passed before its turn came: nobody waits for it."""


class LoadFailed(Exception):
    """A version can't be loaded; worth another try in `retry_after_s` seconds."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostSettings:
    """Where versions of `model` come from and go to; times in seconds.

    `record_folder` is where what went wrong with them is remembered (see `VersionRecord`).
    """

    model: str
    tracking_uri: str
    registry_uri: str
    artifact_folder: str
    max_loaded_versions: int
    record_folder: str
    retry_load_after_s: float = 30.0
    load_timeout_s: float = 300.0


class LoadedVersion:
    """A model in memory. Calls are one at a time: most models are not thread-safe."""

    def __init__(self, key: str, model: PyFuncModel, watch: HostWatch) -> None:
        self.key = key
        self.model = model
        self._watch = watch
        self._turn = asyncio.Lock()

    async def predict(
        self,
        threads: ThreadPoolExecutor,
        frame: tuple[str, tuple[Any, ...], tuple[Any, ...]],
        params: Mapping[str, Any],
        *,
        timeout_s: float,
        patience_s: float,
        alone: asyncio.Lock | None = None,
    ) -> tuple[str, Any]:
        """Answer one frame, as a plain output; raises UnsupportedOutput, ModelRaised, and TooLate
        where its turn (and `alone`, if given) doesn't come within `timeout_s`.

        A caller who leaves while waiting costs nothing; one who leaves while the model computes
        does not let the next call in before that is done. A model that takes longer than
        `patience_s` has hung.
        """
        turns = (self._turn,) if alone is None else (alone, self._turn)
        await _take(turns, timeout_s)
        self._watch.begin_call(self.key, patience_s)
        try:
            call = asyncio.get_running_loop().run_in_executor(
                threads, _call, self.model, frame, dict(params)
            )
        except RuntimeError:  # somebody shut the threads down, and it wasn't us
            self._end_turns(turns)
            self._watch.give_up("the threads that call models are gone")
            raise
        call.add_done_callback(lambda call: self._end_turns(turns, call))
        return await asyncio.shield(call)

    def _end_turns(
        self, turns: tuple[asyncio.Lock, ...], call: asyncio.Future[Any] | None = None
    ) -> None:
        self._watch.end(self.key)
        for turn in turns:
            turn.release()
        if call is not None and not call.cancelled():
            call.exception()  # mark as seen: its caller may have left


async def _take(turns: tuple[asyncio.Lock, ...], timeout_s: float) -> None:
    """Take all of the turns or none; raises TooLate."""
    if len(turns) == 1 and not turns[0].locked():
        await turns[0].acquire()
        return
    async with contextlib.AsyncExitStack() as taken:
        try:
            async with asyncio.timeout(timeout_s):
                for turn in turns:
                    await taken.enter_async_context(turn)
        except TimeoutError:
            raise TooLate from None
        taken.pop_all()


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
    ) -> None:
        self._settings = settings
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
        self._suspects = asyncio.Lock()

    def alone(self, key: str) -> asyncio.Lock | None:
        """The turn that a version must have beside its own where it may be what ends processes:
        with one of those at work at a time it shows which it is. None for all others."""
        return self._suspects if self._record.is_suspect(key) else None

    async def load(self, number: int, fingerprint: str) -> LoadedVersion:
        """The version in memory, loaded now unless it is still there; raises LoadFailed."""
        key = version_key(number, fingerprint)
        left_s = self._record.suspended_for_s(key)
        if left_s:
            raise LoadFailed(left_s)
        alive = self._alive.get(key)
        if alive is not None:
            return alive
        task = self._loading.get(key)
        if task is None:
            task = asyncio.create_task(self._load(key, number, fingerprint))
            self._loading[key] = task
            task.add_done_callback(lambda _: self._loading.pop(key, None))
        return await asyncio.shield(task)

    async def _load(self, key: str, number: int, fingerprint: str) -> LoadedVersion:
        started = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            async with self.alone(key) or contextlib.nullcontext():
                model = await loop.run_in_executor(
                    self._threads, self._fetch_and_load, number, fingerprint
                )
        # A boundary: to fetch and load a version fails in as many ways as there are stores.
        except Exception as error:
            _logger.exception("%s version %s can't be loaded", self._settings.model, number)
            raise LoadFailed(self._record.failed(key)) from error
        self._record.succeeded(key, LOAD)
        loaded = LoadedVersion(key, model, self._watch)
        self._alive[key] = loaded
        spent = time.perf_counter() - started
        _logger.info("%s version %s loaded in %.2f s", self._settings.model, number, spent)
        return loaded

    def _fetch_and_load(self, number: int, fingerprint: str) -> PyFuncModel:
        folder = fetch_artifacts(self._settings, number, fingerprint)
        with (
            self._memory,
            _turns_often(),
            self._watch.loading(version_key(number, fingerprint)),
            _raising(ModelRaised),
        ):
            model: PyFuncModel = mlflow.pyfunc.load_model(str(folder))
        return model


@contextlib.contextmanager
def _raising(kind: type[Exception]) -> Iterator[None]:
    """What the model's own code raises, as `kind`: out of a thread neither a StopIteration nor a
    CancelledError comes as what it is, and a KeyboardInterrupt is not for this process."""
    try:
        yield
    except UnsupportedOutput:
        raise
    except BaseException as error:
        raise kind from error


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
        self._record = VersionRecord(
            Path(settings.record_folder), retry_after_s=settings.retry_load_after_s
        )
        watch = HostWatch(self._record, load_timeout_s=settings.load_timeout_s)
        watch.start()
        self._loader = VersionLoader(settings, self._threads, self._record, watch)
        self._suspects_turn = asyncio.Lock()
        self._versions: dict[str, tuple[int, str]] = {}
        self._resident = keep(self._take)
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
    ) -> tuple[str, Any]:
        """Answer one frame `(layout, names, columns)`, waiting for a load up to `load_timeout_s`,
        and altogether up to `timeout_s`, unless the model is at it by then.

        One of `("ok", (output, timings_ms))`, `("loading", None)`, `("load_failed",
        retry_after_s)`, `("too_late", None)`, `("model_failed", None)` and `("unsupported_output",
        None)`; the reasons go to the log. A load that takes longer goes on. A model that takes
        longer than `patience_s` has hung.
        """
        self._record.refresh()
        started = time.perf_counter()
        try:
            async with asyncio.timeout(load_timeout_s):
                version = await self._loaded(number, fingerprint)
        except TimeoutError:
            return ("loading", None)
        except LoadFailed as failed:
            return ("load_failed", failed.retry_after_s)
        try:
            loaded = time.perf_counter()
            output = await version.predict(
                self._threads,
                frame,
                params,
                timeout_s=timeout_s - (loaded - started),
                patience_s=patience_s,
                alone=self._loader.alone(version.key),
            )
        except TooLate:
            return ("too_late", None)
        except UnsupportedOutput as unsupported:
            _logger.error("version %s: %s", number, unsupported)
            return ("unsupported_output", None)
        except ModelRaised:
            _logger.exception("version %s failed on a request", number)
            return ("model_failed", None)
        self._record.succeeded(version.key, CALL)
        done = time.perf_counter()
        return ("ok", (output, {"load": (loaded - started) * 1e3, "model": (done - loaded) * 1e3}))

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


def fetch_artifacts(settings: HostSettings, number: int, fingerprint: str) -> Path:
    """The version's artifacts on this machine's disk, fetched once; blocks.

    Complete or absent: they are fetched beside and renamed into place, so that a process that
    dies half-way, or two that fetch at once, leave nothing broken.
    """
    digest = hashlib.sha256(fingerprint.encode()).hexdigest()[:32]
    target = Path(settings.artifact_folder) / digest
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(settings.tracking_uri, settings.registry_uri)
    uri = client.get_model_version_download_uri(settings.model, str(number))
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{digest}-"))
    try:
        fetched = mlflow.artifacts.download_artifacts(
            artifact_uri=uri,
            dst_path=str(partial),
            tracking_uri=settings.tracking_uri,
            registry_uri=settings.registry_uri,
        )
        _move_into_place(Path(fetched), target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _move_into_place(fetched: Path, target: Path) -> None:
    try:
        os.rename(fetched, target)
    except OSError:
        if not target.is_dir():  # else another process was faster with the same artifacts
            raise


def _call(
    model: PyFuncModel,
    frame: tuple[str, tuple[Any, ...], tuple[Any, ...]],
    params: dict[str, Any],
) -> tuple[str, Any]:
    with _raising(ModelRaised):
        return plain_output(model.predict(_model_input(*frame), params=params or None))


def _model_input(layout: str, names: tuple[Any, ...], columns: tuple[Any, ...]) -> Any:
    """What MLflow takes for a frame: a DataFrame, an array, named arrays or a plain list."""
    if layout == "table":
        return _table(names, columns)
    if layout == "tensors":
        return dict(zip(names, columns, strict=True))
    return columns[0]


def _table(names: tuple[Any, ...], columns: tuple[Any, ...]) -> pd.DataFrame:
    """Columns of one type as one block: a tenth of what pandas takes for a dict of them."""
    kinds = {column.dtype if isinstance(column, np.ndarray) else None for column in columns}
    if len(kinds) == 1 and None not in kinds:
        return pd.DataFrame(np.column_stack(columns), columns=_index(names))
    return pd.DataFrame(
        {name: _series(column) for name, column in zip(names, columns, strict=True)}
    )


# By names; a plain dict, because what `lru_cache` makes can't travel by value.
_indexes: dict[tuple[Any, ...], pd.Index[Any]] = {}


def _index(names: tuple[Any, ...]) -> pd.Index[Any]:
    found = _indexes.get(names)
    if found is None:
        if len(_indexes) >= _INDEXES:
            _indexes.clear()
        found = _indexes[names] = pd.Index(names)
    return found


def _series(column: Any) -> Any:
    """Lists stay lists of objects: pandas would look at all values to choose a type, and so let
    one row's neighbour turn its None into NaN or its whole number into a fraction."""
    return column if isinstance(column, np.ndarray) else pd.Series(column, dtype=object)
