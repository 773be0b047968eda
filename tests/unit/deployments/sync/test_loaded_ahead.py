"""What always has a replica is loaded before anybody asks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from deployments.placement import Placement
from deployments.sync.loaded_ahead import LoadedAhead
from gateway.catalog import ModelOptions, ModelVersion, ServedModel
from registry_sync.synchronizer import PreparationFailed
from tests.support.catalogs import catalog, served, version
from tests.support.clocks import Clock


class Bench:
    """One model with a replica that is there, and replicas of which the test says what comes of a
    load; what is loaded isn't told before the test says so."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.tried: list[int] = []
        self.error: Exception | None = None
        self.loaded: set[str] = set()
        self.is_running = True
        self.environment_problem: str | None = None
        self.placement = Placement()

    async def _load(self, model: ServedModel, default: ModelVersion) -> None:
        self.tried.append(default.number)
        if self.error is not None:
            raise self.error

    def make(self) -> LoadedAhead:
        return LoadedAhead(
            self._load,
            self.loaded.__contains__,
            is_running=lambda model: self.is_running,
            placement=self.placement,
            environment_problem=lambda model, version: self.environment_problem,
            clock=self.clock,
        )


@pytest.fixture
def bench() -> Bench:
    return Bench()


def kept(*, default: int = 1, **options: Any) -> ServedModel:
    wanted = ModelOptions(**{"min_replicas": 1, **options})
    return served(version(1), version(2), default=default, options=wanted)


async def look(ahead: LoadedAhead, model: ServedModel) -> None:
    ahead.look(catalog(model))
    for _ in range(3):
        await asyncio.sleep(0)


async def test_the_default_is_loaded_once_where_nothing_is(bench: Bench) -> None:
    """At a start; and again where nothing is told to be in memory any more."""
    ahead = bench.make()
    for _ in range(3):
        await look(ahead, kept(default=2))
    assert bench.tried == [2]
    bench.loaded.add("m")
    bench.clock.now += 60
    await look(ahead, kept(default=2))
    assert bench.tried == [2]
    bench.loaded.clear()
    await look(ahead, kept(default=2))
    assert bench.tried == [2, 2]


@pytest.mark.parametrize(
    "options", [{"min_replicas": 0}, {"deployment": "shared", "min_replicas": 0}]
)
async def test_what_may_sleep_is_left_alone(bench: Bench, options: dict[str, Any]) -> None:
    """Nobody asked for a replica of it; in the shared deployment the memory budget decides."""
    await look(bench.make(), kept(**options))
    assert bench.tried == []


@pytest.mark.parametrize(
    "fact", [{"is_running": False}, {"environment_problem": "It is being built."}]
)
async def test_what_cannot_be_loaded_yet_waits(bench: Bench, fact: dict[str, Any]) -> None:
    """Without a replica or an environment nothing is tried, and nothing is held up by it."""
    for name, value in fact.items():
        setattr(bench, name, value)
    ahead = bench.make()
    await look(ahead, kept())
    assert bench.tried == []
    bench.is_running, bench.environment_problem = True, None
    await look(ahead, kept())
    assert bench.tried == [1]


@pytest.mark.parametrize("error", [PreparationFailed("It can't be loaded."), OSError("no")])
async def test_what_fails_is_tried_again_after_pauses(
    bench: Bench, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Less and less often, up to four minutes apart; another version is tried at once."""
    ahead, bench.error = bench.make(), error
    for _ in range(2):
        await look(ahead, kept())
    assert bench.tried == [1]
    bench.clock.now += 240
    await look(ahead, kept())
    assert bench.tried == [1, 1]
    bench.error = None
    await look(ahead, kept(default=2))
    assert bench.tried == [1, 1, 2]
