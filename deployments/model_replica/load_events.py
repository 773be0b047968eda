"""What a model's process tells about its versions: loads, failures, evictions, what is in memory.

Kept here until the sync service has it. Travels to the replica by value, like
`deployments.model_replica.versions`, and imports nothing else of ours; what is told is plain.
"""

from __future__ import annotations

import threading
import uuid
from collections import deque
from typing import Any

_MOST = 1000
"""How many events are kept while nobody takes them; the oldest are dropped."""

Event = tuple[str, int, float]
"""What happened (`ok`, `failed` or `evicted`), to which version, and how many seconds it took."""

HostNews = dict[str, Any]
"""`host`, `model`, `events`, `first` (the number of the first of them in this process's life) and
`loaded`, the count of versions in memory."""


class HostJournal:
    """The events of one process, in their order; for any thread."""

    def __init__(self, model: str) -> None:
        self.model = model
        self._host = uuid.uuid4().hex
        self._events: deque[Event] = deque()
        self._first = 0
        self._loaded = 0
        # What evicts is Python's collector, which may come by in the middle of anything here.
        self._lock = threading.RLock()

    @property
    def has_events(self) -> bool:
        """Whether there are events that nobody took."""
        return bool(self._events)

    @property
    def has_loaded(self) -> bool:
        """Whether any version was ever loaded, or tried."""
        return bool(self._first or self._events)

    def note_load(self, number: int, spent_s: float) -> None:
        """A version is in memory now, after so long."""
        self._add(("ok", number, spent_s), 1)

    def note_failure(self, number: int, spent_s: float) -> None:
        """A version could not be loaded."""
        self._add(("failed", number, spent_s), 0)

    def note_eviction(self, number: int) -> None:
        """A version is in memory no more."""
        self._add(("evicted", number, 0.0), -1)

    def news(self) -> HostNews:
        """All that was not taken, to be told."""
        with self._lock:
            return {
                "host": self._host,
                "model": self.model,
                "first": self._first,
                "events": list(self._events),
                "loaded": self._loaded,
            }

    def take(self, news: HostNews) -> None:
        """What these news tell has arrived."""
        end = news["first"] + len(news["events"])
        with self._lock:
            while self._events and self._first < end:
                self._events.popleft()
                self._first += 1

    def _add(self, event: Event, loaded: int) -> None:
        with self._lock:
            self._events.append(event)
            self._loaded += loaded
            if len(self._events) > _MOST:
                self._events.popleft()
                self._first += 1
