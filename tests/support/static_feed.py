"""A catalog feed whose catalog is what the test sets: `gateway.ports.CatalogFeed` over nothing."""

from __future__ import annotations

import asyncio

from gateway.catalog import Catalog
from gateway.history import HistoryEntry
from gateway.ports import RegistryStatus, SyncReport
from gateway.shadow_figures import ShadowFigures


class StaticFeed:
    """A feed that has `catalog` and `registry` until the test sets others, and counts looks."""

    def __init__(self, catalog: Catalog | None) -> None:
        self.catalog = catalog
        self.registry = RegistryStatus(silent_for_s=1.0)
        self.entries: list[HistoryEntry] = []
        self.shadows: dict[str, ShadowFigures] = {}
        self.looks = 0
        self.looked = asyncio.Event()

    async def history(self, name: str, *, limit: int) -> list[HistoryEntry]:
        return [entry for entry in self.entries if entry.model == name][:limit]

    async def shadow(self, name: str) -> ShadowFigures | None:
        return self.shadows.get(name)

    async def synchronize(self) -> SyncReport:
        self.looks += 1
        self.looked.set()
        return SyncReport(generation=0 if self.catalog is None else self.catalog.generation)
