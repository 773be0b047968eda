"""Metrics of loads: what the models' replicas told the sync service, added up.

Knows each event once, however often it is told. What was counted outlives the process that told it;
what a process has in memory counts for as long as it is heard of. Must not import ray.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from deployments.model_replica.load_events import LoadEvents
from gateway.catalog import Catalog
from gateway.metrics.families import (
    EVICTIONS,
    LOAD_DURATION,
    LOADED_VERSIONS,
    LOADS,
    MODEL_PROCESSES,
    Histogram,
    Reading,
)

SILENCE_S = 35.0
"""After how many seconds a process that tells nothing counts as gone; it tells every ten."""


LoadOutcome = tuple[str, int, str | None]
"""A version, by its model's name and its number, and why it could not be loaded: None where it was,
empty where no reason is told."""


@dataclass(slots=True)
class _Host:
    heard_at: float
    machine: str = ""
    known: int = 0
    loaded: dict[str, int] = field(default_factory=dict)


class HostLedger:
    """Counts by model and version. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._hosts: dict[str, _Host] = {}
        self._loads: Counter[tuple[str, int, str]] = Counter()
        self._durations: dict[str, Histogram] = {}
        self._evictions: Counter[str] = Counter()

    def take(self, news: LoadEvents) -> list[LoadOutcome]:
        """Count what is new in what a process tells; the loads among that."""
        first = news["first"]
        host = self._hosts.setdefault(news["host"], _Host(self._clock()))
        outcomes: list[LoadOutcome] = []
        for what, model, number, spent_s, *reason in news["events"][max(0, host.known - first) :]:
            self._count(model, what, number, spent_s)
            if what != "evicted":
                failure = reason[0] if reason else ""
                outcomes.append((model, number, failure if what == "failed" else None))
        host.known = max(host.known, first + len(news["events"]))
        host.heard_at = self._clock()
        host.loaded = news["loaded"]
        host.machine = news.get("machine", "")
        return outcomes

    def has_loaded(self, model: str) -> bool:
        """Whether any version of the model is in memory somewhere."""
        return any(host.loaded.get(model) for host in self._heard())

    def forget_all_but(self, catalog: Catalog) -> None:
        """Drop what the catalog has no more."""
        for key in [key for key in self._loads if _is_gone(catalog, *key[:2])]:
            del self._loads[key]
        for model in (self._durations.keys() | self._evictions.keys()) - catalog.models.keys():
            self._durations.pop(model, None)
            self._evictions.pop(model, None)

    def reading(self) -> Reading:
        """All counts, and what those in memory have who were heard of lately."""
        loaded: Counter[str] = Counter()
        processes: Counter[tuple[str, str]] = Counter()
        for host in self._heard():
            loaded.update(host.loaded)
            processes.update((model, host.machine) for model in host.loaded)
        return {
            LOADS.name: [
                ((model, str(number), outcome), count)
                for (model, number, outcome), count in self._loads.items()
            ],
            LOAD_DURATION.name: [
                ((model,), each.bins()) for model, each in self._durations.items()
            ],
            EVICTIONS.name: [((model,), count) for model, count in self._evictions.items()],
            LOADED_VERSIONS.name: [((model,), count) for model, count in loaded.items()],
            MODEL_PROCESSES.name: [*processes.items()],
        }

    def _heard(self) -> Collection[_Host]:
        """Those who were heard of lately."""
        now = self._clock()
        self._hosts = {
            name: host for name, host in self._hosts.items() if now - host.heard_at < SILENCE_S
        }
        return self._hosts.values()

    def _count(self, model: str, what: str, number: int, spent_s: float) -> None:
        if what == "evicted":
            self._evictions[model] += 1
            return
        self._loads[model, number, what] += 1
        self._evictions[model] += 0  # a series from the first load on, to be seen growing
        if what == "ok":
            self._durations.setdefault(model, Histogram(LOAD_DURATION)).observe(spent_s)


def _is_gone(catalog: Catalog, model: str, number: int) -> bool:
    found = catalog.models.get(model)
    return found is None or found.version(number) is None
