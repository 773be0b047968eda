"""Loading and calling versions in one process, with loads and models that the test controls."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from deployments.model_replica.call import ModelCall
from deployments.model_replica.crash_record import CALL, STRIKES, VersionRecord
from deployments.model_replica.loaded_version import CallLimits, LoadedVersion, ModelRaised
from deployments.model_replica.loader import HostSettings, LoadFailed, VersionLoader, version_key
from deployments.model_replica.versions import VersionHost
from deployments.model_replica.watchdog import HostWatch

SETTINGS = HostSettings(
    model="m",
    tracking_uri="",
    registry_uri="",
    artifact_folder="",
    record_folder="/proc/none",
    max_loaded_versions=2,
)
NOWHERE = Path(SETTINGS.record_folder)
"""A folder that can't be made: the record is of this process alone."""
FRAME: tuple[str, tuple[Any, ...], tuple[Any, ...]] = ("values", (0,), ([1],))


class GatedModel:
    """A model whose calls wait until they are let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.running = 0
        self.most = 0
        self.calls = 0

    def predict(self, data: Any, params: Any = None) -> Any:
        self.calls += 1
        self.running += 1
        self.most = max(self.most, self.running)
        self.go.wait(10)
        self.running -= 1
        return data


def limits() -> CallLimits:
    """Ten seconds for all that a call may take."""
    return CallLimits(give_up_at=time.monotonic() + 10.0, patience_s=10.0)


def watch(record: VersionRecord | None = None) -> HostWatch:
    """A watch that nobody looks at."""
    return HostWatch(record or VersionRecord(NOWHERE, retry_after_s=1.0), load_timeout_s=10.0)


class GatedLoader(VersionLoader):
    """A loader whose loads wait until they are let go, and fail as told."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        record = VersionRecord(NOWHERE, retry_after_s=SETTINGS.retry_load_after_s)
        super().__init__(SETTINGS, threads, record, watch(record))
        self.go = threading.Event()
        self.loads: list[int] = []
        self.fails = False

    def _fetch_and_load(self, number: int, fingerprint: str) -> Any:
        self.loads.append(number)
        self.go.wait(10)
        if self.fails:
            raise RuntimeError("broken")
        return GatedModel()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


async def _until(condition: Any) -> None:
    pause = asyncio.Event()
    async with asyncio.timeout(5):
        while not condition():
            try:
                await asyncio.wait_for(pause.wait(), 0.01)
            except TimeoutError:
                continue


async def test_however_many_wait_a_version_is_loaded_once(threads: ThreadPoolExecutor) -> None:
    """Callers that come while a version loads share that load; later ones find it."""
    loader = GatedLoader(threads)
    waiting = [asyncio.create_task(loader.load(1, "f")) for _ in range(20)]
    await _until(lambda: loader.loads)
    loader.go.set()
    loaded = await asyncio.gather(*waiting)
    assert all(version is loaded[0] for version in loaded)
    assert await loader.load(1, "f") is loaded[0]
    assert loader.loads == [1]


async def test_a_caller_who_leaves_stops_no_load(threads: ThreadPoolExecutor) -> None:
    """A load goes on for the others when the one who caused it is gone."""
    loader = GatedLoader(threads)
    first = asyncio.create_task(loader.load(1, "f"))
    await _until(lambda: loader.loads)
    second = asyncio.create_task(loader.load(1, "f"))
    first.cancel()
    loader.go.set()
    assert (await second).key == version_key(1, "f")
    assert loader.loads == [1]


async def test_a_failure_is_remembered_for_a_while(threads: ThreadPoolExecutor) -> None:
    """A version that failed isn't tried again at once, and says when; others are not affected."""
    loader = GatedLoader(threads)
    loader.fails = True
    loader.go.set()
    for _ in range(3):
        with pytest.raises(LoadFailed) as caught:
            await loader.load(1, "f")
        assert 0 < caught.value.retry_after_s <= SETTINGS.retry_load_after_s
    loader.fails = False
    await loader.load(2, "g")
    assert loader.loads == [1, 2]


async def test_calls_of_a_version_take_turns(threads: ThreadPoolExecutor) -> None:
    """One predict at a time, also where the caller of the running one has left."""
    model = GatedModel()
    version = LoadedVersion("k", model, watch())
    first = asyncio.create_task(version.predict(threads, FRAME, {}, limits()))
    await _until(lambda: model.running)
    others = [asyncio.create_task(version.predict(threads, FRAME, {}, limits())) for _ in range(3)]
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    model.go.set()
    assert [await other for other in others] == [("values", [1])] * 3
    assert (model.most, model.calls) == (1, 4)


async def test_a_caller_who_leaves_while_waiting_costs_no_call(threads: ThreadPoolExecutor) -> None:
    """Work that was not yet started is dropped with its caller."""
    model = GatedModel()
    version = LoadedVersion("k", model, watch())
    first = asyncio.create_task(version.predict(threads, FRAME, {}, limits()))
    await _until(lambda: model.running)
    waiting = asyncio.create_task(version.predict(threads, FRAME, {}, limits()))
    await asyncio.sleep(0)
    waiting.cancel()
    model.go.set()
    await first
    assert model.calls == 1


async def test_a_call_whose_deadline_passes_while_it_waits_is_not_made(
    threads: ThreadPoolExecutor,
) -> None:
    """Neither on the event loop nor on a thread of its own does a call begin for nobody."""
    model = GatedModel()
    version = LoadedVersion("k", model, watch())
    first = asyncio.create_task(version.predict(threads, FRAME, {}, limits()))
    await _until(lambda: model.running)
    soon = CallLimits(give_up_at=time.monotonic() + 0.05, patience_s=10.0)
    waiting = asyncio.create_task(version.predict(threads, FRAME, {}, soon))
    assert await asyncio.to_thread(version.predict_here, FRAME, {}, soon) is None
    assert await waiting is None
    model.go.set()
    assert await first is not None
    assert model.calls == 1


async def test_suspects_take_turns_with_each_other(threads: ThreadPoolExecutor) -> None:
    """Two versions that may be what ends their process are never at work at the same time."""
    alone = threading.Lock()
    model = GatedModel()
    one, two = (LoadedVersion(key, model, watch()) for key in ("one", "two"))
    suspect = dataclasses.replace(limits(), alone=alone)
    calls = [asyncio.create_task(each.predict(threads, FRAME, {}, suspect)) for each in (one, two)]
    await _until(lambda: model.running)
    model.go.set()
    assert await asyncio.gather(*calls) == [("values", [1])] * 2
    assert model.most == 1


@pytest.mark.parametrize(
    "error",
    [ValueError(), SystemExit(), KeyboardInterrupt(), StopIteration(), GeneratorExit(),
     asyncio.CancelledError()],
)  # fmt: skip
async def test_whatever_a_model_raises_is_the_model_s(
    threads: ThreadPoolExecutor, error: BaseException
) -> None:
    """No exception of a model is taken for one of the host's own, or lost on its way."""

    class Raising:
        def predict(self, data: Any, params: Any = None) -> Any:
            raise error

    version = LoadedVersion("k", Raising(), watch())
    with pytest.raises(ModelRaised) as raised:
        await version.predict(threads, FRAME, {}, limits())
    assert raised.value.__cause__ is error


async def test_without_threads_a_process_is_given_up() -> None:
    """A model that shuts down what it is called by costs its process, which can't answer again."""
    given_up: list[bool] = []
    record = VersionRecord(NOWHERE, retry_after_s=1.0)
    watching = HostWatch(record, load_timeout_s=1.0, give_up=lambda: given_up.append(True))
    threads = ThreadPoolExecutor(1)
    threads.shutdown()
    version = LoadedVersion("k", GatedModel(), watching)
    with pytest.raises(RuntimeError):
        await version.predict(threads, FRAME, {}, limits())
    assert given_up


async def test_calls_take_turns_however_they_come(threads: ThreadPoolExecutor) -> None:
    """One predict at a time, of those by the event loop and those on threads of their own."""
    model = GatedModel()
    version = LoadedVersion("k", model, watch())
    calls = [asyncio.create_task(version.predict(threads, FRAME, {}, limits())) for _ in range(3)]
    calls += [
        asyncio.create_task(asyncio.to_thread(version.predict_here, FRAME, {}, limits()))
        for _ in range(3)
    ]
    await _until(lambda: model.running)
    model.go.set()
    assert await asyncio.gather(*calls) == [("values", [1])] * 6
    assert (model.most, model.calls) == (1, 6)


async def test_on_a_thread_only_versions_in_memory_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A version that isn't loaded is said to be absent, since loading is the event loop's; a
    deadline that has passed is told from a model that fails."""

    class Failing:
        def predict(self, data: Any, params: Any = None) -> Any:
            raise ValueError("secret")

    monkeypatch.setattr(VersionLoader, "_fetch_and_load", lambda *_: Failing())
    host = VersionHost(SETTINGS, keep=lambda take: take)
    now = time.monotonic()
    call = ModelCall(1, "f", FRAME, {}, give_up_at=now + 10, patience_s=10.0)
    assert host.predict_here(call) == ("absent", None)
    version = await host._loaded(1, "f")
    assert host.predict_here(call) == ("model_failed", None)
    assert host.predict_here(call._replace(give_up_at=now - 1)) == ("late", None)
    assert version.key == version_key(1, "f")


async def test_a_version_whose_calls_were_the_reason_is_not_said_to_fail_to_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Suspended for its calls and suspended for its load are two outcomes, whichever way a call
    comes."""
    monkeypatch.setattr(VersionLoader, "_fetch_and_load", lambda *_: GatedModel())
    host = VersionHost(SETTINGS, keep=lambda take: take)
    call = ModelCall(1, "f", FRAME, {}, give_up_at=time.monotonic() + 10, patience_s=10.0)
    version = await host._loaded(1, "f")
    for _ in range(STRIKES):
        host._record.hung(version.key, CALL)
    kinds = {host.predict_here(call)[0], (await host.predict(call, 1.0))[0]}
    kinds.add((await host.load(1, "f"))[0])
    assert kinds == {"suspended"}
    host._record.failed(version.key)
    kind, retry_after_s = await host.load(1, "f")
    assert kind == "load_failed"
    assert retry_after_s > 0
