"""The state machine around reading, preparing and publishing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.catalog import ModelVersion, ServedModel
from registry_sync.default_version import DefaultPolicy
from registry_sync.records import RegisteredModel, RegistryReading, RegistryUnreachable
from registry_sync.snapshot import SnapshotStore
from registry_sync.synchronizer import BEING_LOADED, PreparationFailed, Synchronizer
from tests.support.catalogs import record, version
from tests.support.clocks import Clock


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
    """Models run where told; a preparation ends when it is let to."""

    def __init__(self) -> None:
        self.active = False
        self.may_end = asyncio.Event()
        self.fails = False
        self.prepared: list[int] = []

    def is_active(self, model: ServedModel) -> bool:
        return self.active

    async def prepare(self, model: ServedModel, version: ModelVersion) -> None:
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
        snapshots = SnapshotStore(folder, registry="r")
        self.synchronizer = Synchronizer(
            source=self.registry,
            snapshots=snapshots,
            restored=snapshots.load(),
            policy=DefaultPolicy(),
            preparer=self.preparer,
            clock=self.clock,
        )

    def model(self) -> ServedModel:
        catalog = self.synchronizer.catalog
        assert catalog is not None
        return catalog.models["m"]

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


async def test_a_sleeping_model_switches_at_once(bench: Bench) -> None:
    """Where nothing runs, nobody would notice a cold start: no preparation."""
    await bench.synchronizer.synchronize()
    bench.registry.reading = (record(version(1), version(2)),)
    await bench.synchronizer.synchronize()
    assert bench.model().default_version == 2


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
