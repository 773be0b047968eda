"""The state machine around reading, preparing and publishing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from itertools import pairwise
from pathlib import Path

import pytest

from gateway.catalog import ModelVersion, ServedModel
from registry_sync.default_version import BEING_LOADED, DefaultPolicy
from registry_sync.records import RegisteredModel, RegistryReading, RegistryUnreachable
from registry_sync.snapshot import SnapshotStore
from registry_sync.synchronizer import PreparationFailed, Synchronizer
from tests.support.catalogs import record, version
from tests.support.clocks import Clock
from tests.support.processes import poll

REQUEST: ContextVar[str | None] = ContextVar("REQUEST", default=None)


class FakeRegistry:
    """A registry that says what it is told to."""

    def __init__(self, *records: RegisteredModel) -> None:
        self.reading: RegistryReading = records
        self.is_down = False

    def read(self) -> RegistryReading:
        if self.is_down:
            raise RegistryUnreachable("The registry gives no usable answer.")
        return self.reading


class FakePreparer:
    """Models run where told; a preparation ends when it is let to. `begun` are the names of models
    whose preparations began."""

    def __init__(self) -> None:
        self.active = False
        self.may_end = asyncio.Event()
        self.fails = False
        self.begun: list[str] = []
        self.prepared: list[int] = []
        self.requests: list[str | None] = []

    def is_active(self, model: ServedModel) -> bool:
        return self.active

    async def prepare(self, model: ServedModel, version: ModelVersion) -> None:
        self.requests.append(REQUEST.get())
        self.begun.append(model.name)
        await self.may_end.wait()
        if self.fails:
            raise PreparationFailed("It can't be loaded.")
        self.prepared.append(version.number)


class Bench:
    """A synchronizer over fakes."""

    def __init__(self, folder: Path, *records: RegisteredModel) -> None:
        self.registry = FakeRegistry(*records)
        self.preparer = FakePreparer()
        self.clock = Clock()
        self.snapshots = SnapshotStore(folder, registry="r")
        self.synchronizer = Synchronizer(
            source=self.registry,
            snapshots=self.snapshots,
            restored=self.snapshots.load(),
            policy=DefaultPolicy(),
            preparer=self.preparer,
            clock=self.clock,
        )

    def model(self) -> ServedModel:
        catalog = self.synchronizer.catalog
        assert catalog is not None
        return catalog.models["m"]

    async def until_loaded_is_kept(self, *fingerprints: str) -> None:
        def is_kept() -> bool:
            kept = self.snapshots.load()
            return kept is not None and kept.loaded == set(fingerprints)

        await asyncio.to_thread(poll, is_kept, timeout_s=5)

    async def until(self, condition: Callable[[ServedModel], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition(self.model()):
                catalog = self.synchronizer.catalog
                assert catalog is not None
                await self.synchronizer.wait_for(catalog.generation, timeout_s=5)

    async def until_default_is(self, number: int) -> None:
        await self.until(lambda model: model.default_version == number)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, record(version(1)))


async def test_a_sync_reports_what_came_changed_and_went(bench: Bench) -> None:
    """The report names the models."""
    first = await bench.synchronizer.synchronize()
    assert (first.added, first.changed, first.removed) == (("m",), (), ())
    bench.registry.reading = (record(version(1), aliases={"a": 1}), record(version(1), name="n"))
    second = await bench.synchronizer.synchronize()
    assert (second.added, second.changed, second.removed) == (("n",), ("m",), ())
    bench.registry.reading = ()
    assert (await bench.synchronizer.synchronize()).removed == ("m", "n")


async def test_a_registry_that_is_away_changes_nothing(bench: Bench) -> None:
    """The catalog stays, the silence is measured, and it ends by itself."""
    await bench.synchronizer.synchronize()
    before = bench.synchronizer.catalog
    bench.registry.is_down = True
    bench.clock.now += 30
    report = await bench.synchronizer.synchronize()
    assert report.problem is not None
    assert bench.synchronizer.catalog is before
    assert bench.synchronizer.registry.silent_for_s == 30
    bench.registry.is_down = False
    assert (await bench.synchronizer.synchronize()).problem is None
    assert bench.synchronizer.registry.silent_for_s == 0


async def test_a_restart_without_registry_serves_the_snapshot(bench: Bench, tmp_path: Path) -> None:
    """What was served and promised before is there again, held versions too."""
    await bench.synchronizer.synchronize()
    again = Bench(tmp_path)
    again.registry.is_down = True
    assert again.synchronizer.catalog == bench.synchronizer.catalog


async def test_a_catalog_that_could_not_be_saved_is_saved_later(tmp_path: Path) -> None:
    """With the next look that finds a disk, though nothing has changed since; told meanwhile."""
    folder = tmp_path / "state"
    folder.write_text("in the way")
    bench = Bench(folder, record(version(1)))
    await bench.synchronizer.synchronize()
    assert bench.synchronizer.registry.snapshot_problem is not None
    folder.unlink()
    await bench.synchronizer.synchronize()
    assert bench.synchronizer.registry.snapshot_problem is None
    assert Bench(folder).synchronizer.catalog == bench.synchronizer.catalog


async def test_a_model_that_nobody_called_switches_at_once(bench: Bench) -> None:
    """Where nothing runs and the default was never loaded nothing is started for a new one."""
    await bench.synchronizer.synchronize()
    bench.registry.reading = (record(version(1), version(2)),)
    await bench.synchronizer.synchronize()
    assert bench.model().default_version == 2
    assert bench.preparer.begun == []


async def test_a_broken_version_does_not_take_a_sleeping_model_down(bench: Bench) -> None:
    """A default that was loaded stays until the new one has been prepared, though nothing runs."""
    await bench.synchronizer.synchronize()
    bench.synchronizer.note_loaded(version(1))
    bench.preparer.fails = True
    bench.preparer.may_end.set()
    bench.registry.reading = (record(version(1), version(2)),)
    await bench.synchronizer.synchronize()
    await bench.until(lambda m: m.held is not None and m.held.reason == "It can't be loaded.")
    assert bench.model().default_version == 1
    bench.preparer.fails = False
    bench.clock.now += 61
    await bench.synchronizer.synchronize()
    await bench.until_default_is(2)


async def test_what_was_loaded_is_known_after_a_restart(bench: Bench, tmp_path: Path) -> None:
    """A version that was registered while the gateway was down is prepared at the first look, and
    what took over counts as loaded, too."""
    await bench.synchronizer.synchronize()
    bench.synchronizer.note_loaded(version(1))
    await bench.until_loaded_is_kept("f1")
    again = Bench(tmp_path, record(version(1), version(2)))
    await again.synchronizer.synchronize()
    assert again.model().default_version == 1
    again.preparer.may_end.set()
    await again.until_default_is(2)
    await again.until_loaded_is_kept("f1", "f2")
    again.registry.reading = (record(version(2)),)
    await again.synchronizer.synchronize()
    await again.until_loaded_is_kept("f2")


async def test_loads_that_come_together_are_all_kept(bench: Bench) -> None:
    """Each is on disk in the end, whenever it came."""
    versions = tuple(version(number) for number in range(1, 40))
    bench.registry.reading = (record(*versions),)
    await bench.synchronizer.synchronize()
    for each in versions:
        bench.synchronizer.note_loaded(each)
        await asyncio.sleep(0)
    await bench.until_loaded_is_kept(*(each.fingerprint for each in versions))


async def test_a_load_that_a_preparation_made_proves_nothing_by_itself(bench: Bench) -> None:
    """A version that loads and then fails on its own example is no default after a restart."""
    await bench.synchronizer.synchronize()
    bench.synchronizer.note_loaded(version(1))
    bench.preparer.fails = True
    bench.registry.reading = (record(version(1), version(2)),)
    await bench.synchronizer.synchronize()
    bench.synchronizer.note_loaded(version(2))
    bench.preparer.may_end.set()
    await bench.until(lambda m: m.held is not None and m.held.reason != BEING_LOADED)
    bench.synchronizer.note_loaded(version(2))
    await bench.until_loaded_is_kept("f1")
    await bench.synchronizer.synchronize()
    assert bench.model().default_version == 1


async def test_few_sleeping_models_are_woken_at_once(bench: Bench) -> None:
    """A night's retraining doesn't start every model that was ever called; all come to their
    turn."""
    names = [f"m{number}" for number in range(6)]
    fingerprints = {name: f"old {name}" for name in names}
    old = [version(1, fingerprint=fingerprints[name]) for name in names]
    bench.registry.reading = tuple(
        record(each, name=name) for name, each in zip(names, old, strict=True)
    )
    await bench.synchronizer.synchronize()
    for each in old:
        bench.synchronizer.note_loaded(each)
    bench.registry.reading = tuple(
        record(each, version(2, fingerprint=f"new {name}"), name=name)
        for name, each in zip(names, old, strict=True)
    )
    await bench.synchronizer.synchronize()
    await bench.synchronizer.settle(timeout_s=0)
    assert len(bench.preparer.begun) == 2
    bench.preparer.may_end.set()
    await bench.synchronizer.settle(timeout_s=5)
    assert sorted(bench.preparer.begun) == names


async def test_a_version_that_fails_again_is_tried_less_and_less_often(bench: Bench) -> None:
    """Each try may wake a model: after one, two and four minutes, and at last every hour."""
    await bench.synchronizer.synchronize()
    bench.synchronizer.note_loaded(version(1))
    bench.preparer.fails = True
    bench.preparer.may_end.set()
    bench.registry.reading = (record(version(1), version(2)),)
    tried = []
    for _ in range(2 * 60 * 8):
        begun = len(bench.preparer.begun)
        await bench.synchronizer.synchronize()
        await bench.synchronizer.settle(timeout_s=5)
        if len(bench.preparer.begun) > begun:
            tried.append(bench.clock.now - 100)
        bench.clock.now += 30
    waits = [later - earlier for earlier, later in pairwise(tried)]
    assert waits[:3] == [60, 120, 240]
    assert waits[-1] == 3600


async def test_a_running_model_switches_once_the_new_version_is_prepared(bench: Bench) -> None:
    """Until the new default is loaded and has answered, the old one goes on."""
    await bench.synchronizer.synchronize()
    bench.preparer.active = True
    bench.registry.reading = (record(version(1), version(2)),)
    await bench.synchronizer.synchronize()
    held = bench.model().held
    assert bench.model().default_version == 1
    assert held is not None
    assert held.reason == BEING_LOADED
    bench.preparer.may_end.set()
    await bench.until_default_is(2)
    assert bench.preparer.prepared == [2]
    assert bench.model().held is None


@pytest.mark.parametrize("turns", range(12))
async def test_a_look_is_ended_whoever_leaves(bench: Bench, tmp_path: Path, turns: int) -> None:
    """The caller who set it off is cancelled at any moment: what the look finds is published, told
    to all who wait for it and kept on disk."""
    await bench.synchronizer.synchronize()
    bench.registry.reading = (record(version(1)), record(version(1), name="n"))
    waiting = asyncio.create_task(bench.synchronizer.wait_for(1, timeout_s=5))
    caller = asyncio.create_task(bench.synchronizer.synchronize())
    for _ in range(turns):
        # A thread reads meanwhile, or doesn't yet.
        await (asyncio.to_thread(int) if turns % 2 else asyncio.sleep(0))
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    if turns == 0:
        waiting.cancel()  # it was never begun
        return
    told = await waiting
    assert told is not None
    assert set(told.models) == {"m", "n"}
    await bench.synchronizer.synchronize()  # looks come one after another: that one is over
    kept = SnapshotStore(tmp_path, registry="r").load()
    assert kept is not None
    assert set(kept.catalog.models) == {"m", "n"}


async def test_a_preparation_belongs_to_no_look(bench: Bench) -> None:
    """What is bound to the request that set off a look has no hold on the preparations that it
    begins, and neither has its end."""
    await bench.synchronizer.synchronize()
    bench.preparer.active = True
    bench.preparer.may_end.set()
    bench.registry.reading = (record(version(1), version(2)),)
    REQUEST.set("the caller's")
    await bench.synchronizer.synchronize()
    await bench.until_default_is(2)
    assert bench.preparer.requests == [None]


async def test_settling_ends_with_the_preparations_or_with_the_time(bench: Bench) -> None:
    """Who waits for a default to take over sees it there, or goes on when time is up."""
    await bench.synchronizer.synchronize()
    bench.preparer.active = True
    bench.registry.reading = (record(version(1), version(2)),)
    await bench.synchronizer.synchronize()
    before = await bench.synchronizer.settle(timeout_s=0)
    assert bench.model().default_version == 1
    bench.preparer.may_end.set()
    assert await bench.synchronizer.settle(timeout_s=5) > before
    assert bench.model().default_version == 2


async def test_a_version_that_cannot_be_loaded_is_held_and_tried_again_later(bench: Bench) -> None:
    """A failed preparation is remembered for a while, then tried once more."""
    await bench.synchronizer.synchronize()
    bench.preparer.active = bench.preparer.fails = True
    bench.preparer.may_end.set()
    bench.registry.reading = (record(version(1), version(2)),)
    await bench.synchronizer.synchronize()
    await bench.until(lambda m: m.held is not None and m.held.reason != BEING_LOADED)
    bench.preparer.fails = False
    await bench.synchronizer.synchronize()
    assert bench.preparer.prepared == []
    bench.clock.now += 61
    await bench.synchronizer.synchronize()
    await bench.until_default_is(2)


async def test_a_version_that_comes_back_is_prepared_again(bench: Bench) -> None:
    """Having been the default once says nothing about being loaded now."""
    await bench.synchronizer.synchronize()
    bench.preparer.active = True
    bench.preparer.may_end.set()
    versions = (version(1), version(2))
    for champion in (2, 1, 2):
        bench.registry.reading = (record(*versions, aliases={"champion": champion}),)
        await bench.synchronizer.synchronize()
        await bench.until_default_is(champion)
    assert bench.preparer.prepared == [2, 1, 2]


async def test_a_follower_is_told_which_models_changed(bench: Bench) -> None:
    """What came, changed or went since a generation; nothing about the time before the first."""
    await bench.synchronizer.synchronize()
    assert bench.synchronizer.changed_since(1) == frozenset()
    bench.registry.reading = (record(version(1)), record(version(1), name="n"))
    await bench.synchronizer.synchronize()
    bench.registry.reading = (record(version(1), name="n"),)
    await bench.synchronizer.synchronize()
    assert bench.synchronizer.changed_since(1) == {"m", "n"}
    assert bench.synchronizer.changed_since(2) == {"m"}
    assert bench.synchronizer.changed_since(0) is None


async def test_a_restart_knows_changes_since_its_snapshot(bench: Bench, tmp_path: Path) -> None:
    """The log begins with what was restored."""
    await bench.synchronizer.synchronize()
    again = Bench(tmp_path, record(version(1), version(2)))
    await again.synchronizer.synchronize()
    assert again.synchronizer.changed_since(1) == {"m"}


async def test_waiting_ends_with_the_next_generation(bench: Bench) -> None:
    """A long poll returns when there is something new, and with what there is when time is up."""
    assert await bench.synchronizer.wait_for(0, timeout_s=0) is None
    waiting = asyncio.create_task(bench.synchronizer.wait_for(0, timeout_s=5))
    await bench.synchronizer.synchronize()
    assert await waiting is bench.synchronizer.catalog
    assert await bench.synchronizer.wait_for(1, timeout_s=0) is bench.synchronizer.catalog


CANARY_TAGS = {"modelmux.canary": "challenger:10"}
CANARY = record(version(1), version(2), aliases={"champion": 1, "challenger": 2}, tags=CANARY_TAGS)


async def test_a_canary_is_prepared_before_anybody_goes_there(bench: Bench) -> None:
    """Also where its model sleeps; nobody goes there until it has answered once."""
    bench.registry.reading = (CANARY,)
    await bench.synchronizer.synchronize()
    canary = bench.model().canary
    assert canary is not None
    assert canary.state == "waiting"
    bench.preparer.may_end.set()
    await bench.until(lambda model: model.canary is not None and model.canary.state == "running")
    assert bench.preparer.prepared == [2]
    assert bench.model().default_version == 1


async def test_a_canary_that_is_stopped_stays_so_after_a_restart(
    bench: Bench, tmp_path: Path
) -> None:
    """The registry needn't answer for it to be stopped, nor later for it to be known."""
    bench.registry.reading = (CANARY,)
    bench.preparer.may_end.set()
    await bench.synchronizer.synchronize()
    await bench.until(lambda model: model.canary is not None and model.canary.state == "running")
    await bench.synchronizer.reconsider()  # after what was published before is kept
    again = Bench(tmp_path, CANARY)
    again.registry.is_down = True
    running = again.model().canary
    assert running is not None
    assert running.state == "running"
    await again.synchronizer.stop_canary("m", running.trial, "It fails.")
    third = Bench(tmp_path, CANARY)
    await third.synchronizer.synchronize()
    canary = third.model().canary
    assert canary is not None
    assert (canary.state, canary.why) == ("stopped", "It fails.")
