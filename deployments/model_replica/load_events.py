"""The log of a replica's load events: loads, failures, evictions, what is in memory.

A log of numbered events, kept here until the sync service has them.
"""

from __future__ import annotations

import socket
import uuid
from collections import deque
from typing import NotRequired, TypedDict

_MOST = 1000
"""How many events are kept while nobody takes them; the oldest are dropped."""

Event = tuple[str, str, int, float] | tuple[str, str, int, float, str]
"""What happened (`ok`, `failed` or `evicted`), to which model's which version, how many seconds it
took, and of one that failed the reason."""


class LoadEvents(TypedDict):
    """What is told. `first` is the number of the first of the `events` in the replica's life,
    `loaded` the counts of versions in memory, by their models, and `machine` the name of where
    that is."""

    host: str
    machine: NotRequired[str]
    first: int
    events: list[Event]
    loaded: dict[str, int]


class LoadEventLog:
    """The events of one replica, in their order. `loaded` is how many versions are in memory, by
    their models."""

    def __init__(self) -> None:
        self.loaded: dict[str, int] = {}
        self._host = uuid.uuid4().hex
        self._machine = socket.gethostname()
        self._events: deque[Event] = deque()
        self._first = 0

    @property
    def has_events(self) -> bool:
        """Whether there are events that nobody took."""
        return bool(self._events)

    @property
    def has_loaded(self) -> bool:
        """Whether any version was ever loaded, or tried."""
        return bool(self._first or self._events)

    def note_load(self, model: str, number: int, spent_s: float) -> None:
        """A version is in memory now, after so long."""
        self._add(("ok", model, number, spent_s))

    def note_failure(self, model: str, number: int, spent_s: float, reason: str) -> None:
        """A version could not be loaded."""
        self._add(("failed", model, number, spent_s, reason))

    def note_eviction(self, model: str, number: int) -> None:
        """A version is in memory no more: others were used later."""
        self._add(("evicted", model, number, 0.0))

    def untold(self) -> LoadEvents:
        """All that was not taken, to be told."""
        return {
            "host": self._host,
            "machine": self._machine,
            "first": self._first,
            "events": list(self._events),
            "loaded": dict(self.loaded),
        }

    def take(self, told: LoadEvents) -> None:
        """What these tell has arrived."""
        end = told["first"] + len(told["events"])
        while self._events and self._first < end:
            self._events.popleft()
            self._first += 1

    def _add(self, event: Event) -> None:
        self._events.append(event)
        if len(self._events) > _MOST:
            self._events.popleft()
            self._first += 1
