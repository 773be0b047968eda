"""When a canary is to be stopped: what all ingress replicas have counted of it, against its rule.

Each replica tells all that it has counted, again and again: to hear it twice, or after this process
was restarted, counts nothing twice. What a replica told that is gone counts on. Pure, over a clock.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from gateway.canary import Canary, Counts
from gateway.catalog import Catalog

_WINDOW_S = 300.0
_SAMPLE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """A trial of a model's canary that has failed too often, and why it ends, in a sentence."""

    model: str
    trial: str
    why: str


@dataclass(slots=True)
class _Trial:
    """What each replica has counted, and the sums as they were, oldest first: (time, requests,
    errors)."""

    told: dict[str, tuple[int, int]] = field(default_factory=dict)
    sums: deque[tuple[float, int, int]] = field(default_factory=deque)

    def sum(self) -> tuple[int, int]:
        return (
            sum(requests for requests, _ in self.told.values()),
            sum(errors for _, errors in self.told.values()),
        )


class CanaryWatch:
    """Judges by the whole trial, and by its last minutes: a canary that answered for days and
    fails now is stopped, too. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._trials: dict[str, _Trial] = {}

    def take(self, replica: str, counts: Counts, catalog: Catalog) -> list[Overdue]:
        """What a replica has counted, by trial; the canaries that are to be stopped."""
        canaries = {canary.trial: (name, canary) for name, canary in _running(catalog)}
        self._trials = {key: each for key, each in self._trials.items() if key in canaries}
        for trial in counts.keys() & canaries.keys():
            self._trials.setdefault(trial, _Trial()).told[replica] = counts[trial]
        found = []
        for trial, known in self._trials.items():
            name, canary = canaries[trial]
            why = self._verdict(known, canary)
            if why is not None:
                found.append(Overdue(model=name, trial=trial, why=why))
        return found

    def _verdict(self, known: _Trial, canary: Canary) -> str | None:
        requests, errors = known.sum()
        now = self._clock()
        sums = known.sums
        # The newest of those that are too old is what the window begins with.
        while len(sums) > 1 and sums[1][0] <= now - _WINDOW_S:
            sums.popleft()
        is_old = bool(sums) and sums[0][0] <= now - _WINDOW_S
        _, before, failed_before = sums[0] if is_old else (now, 0, 0)
        if not sums or now - sums[-1][0] >= _SAMPLE_S:
            sums.append((now, requests, errors))
        return _reason(canary, requests, errors) or _reason(
            canary, requests - before, errors - failed_before
        )


def _reason(canary: Canary, requests: int, errors: int) -> str | None:
    most = canary.rule.max_error_ratio
    if most is None or requests < canary.rule.min_requests or errors / requests <= most:
        return None
    return (
        f"{errors} of {requests} requests failed by its own doing, more than the tag "
        f"modelmux.canary_max_error_ratio lets ({most:g})."
    )


def _running(catalog: Catalog) -> Iterator[tuple[str, Canary]]:
    for name, model in catalog.models.items():
        if model.canary is not None and model.canary.state == "running":
            yield name, model.canary
