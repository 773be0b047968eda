"""What is asked with each key: counts, and the bound of a key that has one.

A token bucket per key: `Rate.burst` requests at once, `Rate.per_s` a second in the long run. Each
ingress replica has its own. Must not import ray, mlflow or fastapi.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping

from gateway.errors import RateLimited
from gateway.security.api_keys import Key, Rate


class _Bucket:
    """How many requests may come now; it fills up while none come."""

    __slots__ = ("_at_s", "_left", "rate")

    def __init__(self, rate: Rate, now_s: float) -> None:
        self.rate = rate
        self._left = float(rate.burst)
        self._at_s = now_s

    def take(self, now_s: float) -> float:
        """Zero where one more may come, else how many seconds it is until then."""
        filled = self._left + (now_s - self._at_s) * self.rate.per_s
        self._left, self._at_s = min(filled, float(self.rate.burst)), now_s
        if self._left < 1:
            return (1 - self._left) / self.rate.per_s
        self._left -= 1
        return 0.0


class KeyUsage:
    """Counts the requests of each key by its name, and refuses those beyond its rate."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}
        self._requests: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()

    @property
    def requests(self) -> Mapping[str, int]:
        """How many came with each key."""
        return self._requests

    @property
    def refused(self) -> Mapping[str, int]:
        """How many of these were beyond the key's rate."""
        return self._refused

    def note(self, key: Key) -> None:
        """A request came with that key; raises RateLimited."""
        self._requests[key.name] += 1
        if key.rate is None:
            return
        now_s = self._clock()
        bucket = self._buckets.get(key.name)
        if bucket is None or bucket.rate != key.rate:
            bucket = self._buckets[key.name] = _Bucket(key.rate, now_s)
        wait_s = bucket.take(now_s)
        if wait_s:
            self._refused[key.name] += 1
            raise RateLimited(
                f"With this key {key.rate.per_s:g} requests a second may be sent.",
                retry_after_s=wait_s,
            )

    def forget_all_but(self, names: Collection[str]) -> None:
        """Drop what keys have asked that there are no more."""
        for gone in self._requests.keys() - set(names):
            for known in (self._requests, self._refused, self._buckets):
                known.pop(gone, None)
