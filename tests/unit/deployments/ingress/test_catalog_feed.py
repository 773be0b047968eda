"""An ingress replica follows the sync service, whatever becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from deployments.catalog_updates import NOWHERE, Position, RegistryNews, packed
from deployments.ingress.catalog_feed import RayCatalogFeed
from deployments.serve.ports import CallLost, Loss
from gateway.catalog import Catalog
from gateway.errors import InternalError
from gateway.ports import SyncReport
from tests.support.catalogs import catalog, served, version
from tests.support.fake_serve import FakeReplicas, until


class Sync:
    """A sync service that can be away, restart, and speak nonsense."""

    def __init__(self) -> None:
        self.life = "first"
        self.catalog: Catalog | None = None
        self.warnings: dict[str, list[str]] = {}
        self.loss: Loss | None = None
        self.nonsense: Any = None
        self.asked: list[tuple[Position, list[str]]] = []
        self.may_look = asyncio.Event()
        self.may_look.set()
        self.handle = FakeReplicas(wait_for=self._wait_for, synchronize=self._synchronize)

    def publish(self, *names: str) -> None:
        generation = 1 if self.catalog is None else self.catalog.generation + 1
        models = [served(version(1), name=name) for name in names]
        self.catalog = catalog(*models, generation=generation)

    async def _wait_for(
        self, known: Position, timeout_s: float, used: list[str], environments: str
    ) -> Any:
        self.asked.append((known, used))
        await asyncio.sleep(0)
        if self.loss is not None:
            raise CallLost(self.loss)
        if self.nonsense is not None:
            nonsense, self.nonsense = self.nonsense, None
            return nonsense
        update = None
        if self.catalog is not None and known != (self.life, self.catalog.generation):
            update = packed(self.catalog, None, position=(self.life, self.catalog.generation))
        return RegistryNews(
            update=update,
            silent_for_s=3.0,
            problem=None,
            snapshot_problem=None,
            warnings=self.warnings,
        )

    async def _synchronize(self) -> SyncReport:
        await self.may_look.wait()
        if self.loss is not None:
            raise CallLost(self.loss)
        assert self.catalog is not None
        return SyncReport(generation=self.catalog.generation)


@pytest.fixture
def sync() -> Sync:
    return Sync()


@pytest.fixture
async def feed(sync: Sync, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RayCatalogFeed]:
    monkeypatch.setattr("deployments.ingress.catalog_feed._RETRY_S", 0.0)
    made = RayCatalogFeed(sync.handle, take_used=lambda: ["used"])
    following = asyncio.create_task(made.follow())
    yield made
    following.cancel()


def names(feed: RayCatalogFeed) -> set[str]:
    return set() if feed.catalog is None else set(feed.catalog.models)


async def test_it_has_what_was_published(sync: Sync, feed: RayCatalogFeed) -> None:
    """Nothing at first, which is news too; then each catalog, with the warnings of the moment."""
    await feed.wait_for_news(timeout_s=5)
    assert feed.catalog is None
    sync.publish("a")
    await until(lambda: names(feed) == {"a"})
    sync.publish("b")
    sync.warnings = {"b": ["It takes long."]}
    await until(lambda: names(feed) == {"b"})
    assert feed.catalog is not None
    assert "It takes long." in str(feed.catalog.models["b"])
    assert sync.asked[0] == (NOWHERE, ["used"])


async def test_a_sync_service_that_is_away_takes_nothing_away(
    sync: Sync, feed: RayCatalogFeed
) -> None:
    """What is known goes on being served, it is told, and a new life of it is followed."""
    sync.publish("a")
    await until(lambda: names(feed) == {"a"})
    sync.loss = Loss.INSIDE
    await until(lambda: feed.registry.problem is not None)
    assert names(feed) == {"a"}
    sync.life, sync.loss = "second", None
    sync.publish("b")
    await until(lambda: names(feed) == {"b"})
    assert feed.registry.problem is None


async def test_what_cannot_be_read_is_asked_for_anew(sync: Sync, feed: RayCatalogFeed) -> None:
    """An answer of another release ends nothing: the whole catalog is asked for."""
    sync.publish("a")
    await until(lambda: names(feed) == {"a"})
    sync.nonsense = {"of another": "release"}
    sync.asked.clear()
    await until(lambda: any(known == NOWHERE for known, _ in sync.asked))
    sync.publish("b")
    await until(lambda: names(feed) == {"b"})


async def test_who_has_the_registry_looked_at_sees_what_was_found(
    sync: Sync, feed: RayCatalogFeed
) -> None:
    """The catalog of the report is there when the caller is answered."""
    await feed.wait_for_news(timeout_s=5)
    sync.publish("a")
    report = await feed.synchronize()
    assert report.generation == 1
    assert names(feed) == {"a"}


async def test_a_look_that_is_lost_is_an_error_of_ours(sync: Sync, feed: RayCatalogFeed) -> None:
    """And a caller who leaves meanwhile stops nothing."""
    sync.publish("a")
    sync.may_look.clear()
    caller = asyncio.create_task(feed.synchronize())
    await asyncio.sleep(0)
    caller.cancel()
    await until(lambda: names(feed) == {"a"})
    sync.may_look.set()
    sync.loss = Loss.FAILED
    with pytest.raises(InternalError):
        await feed.synchronize()
