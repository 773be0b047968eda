"""One application of a model: what it should be, what it is, and what may follow what.

Pure, but for the lock and the adjustment that belong to it. Must not import ray.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from deployments.placement import ApplicationPlan
from deployments.sync.reconciler import SLOW, SLOW_AFTER_S, Adjustment
from gateway.catalog import ModelOptions, ServedModel

IDLE_AFTER_S = 11.0
"""Above twice the feed's long poll (`deployments.ingress.catalog_feed`): ingress replicas tell with
each which models had a request inside since the last one."""


class State(Enum):
    """What an application is: ASLEEP -> STARTING -> RUNNING -> ASLEEP, and from STARTING back to
    ASLEEP where it doesn't come up."""

    ASLEEP = "Serve has none of that name, or is deleting it"
    STARTING = "it has its room, and is deployed for the first time"
    RUNNING = "it came up; it may be changed meanwhile"


@dataclass(slots=True, kw_only=True, eq=False)
class Application:
    """An application by its name.

    `wanted` is what it is to be by the catalog, None where it isn't. `moved` is then the model that
    it had, where another application is to have that. `options` are those that it
    runs with, None where an earlier sync service made it. `is_asked_for` says that a request waits
    for its start. `used_at` is when requests were last heard of, in seconds of the activator's
    clock, `begun_at` when it was last begun to start. `failed_start` is with which placement it did
    not come up when it was last asked for, and why. What changes it on Serve holds `changing`.
    """

    name: str
    adjustment: Adjustment
    state: State = State.ASLEEP
    wanted: ApplicationPlan | None = None
    moved: ServedModel | None = None
    options: ModelOptions | None = None
    is_asked_for: bool = False
    used_at: float = 0.0
    begun_at: float = 0.0
    failed_start: tuple[object, str] | None = None
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def begin(self, now: float) -> None:
        """It has its room, and is going to be deployed."""
        self.state = State.STARTING
        self.used_at = self.begun_at = now

    def run_with(self, options: ModelOptions | None) -> None:
        """It is there, with these options."""
        self.state = State.RUNNING
        self.options = options
        self.failed_start = None

    def fail_to_start(self, reason: str) -> None:
        """It did not come up."""
        if self.to_deploy is not None:
            self.failed_start = (placement(self.to_deploy.options), reason)

    def sleep(self) -> None:
        """It isn't there any more, or won't be in a moment."""
        self.state = State.ASLEEP
        self.options = None

    @property
    def is_running(self) -> bool:
        """Whether it is there, as far as is known."""
        return self.state is State.RUNNING

    @property
    def is_shared(self) -> bool:
        """Whether it is to be that of many models, by what is known of all."""
        return self.wanted is not None and self.wanted.is_shared

    @property
    def models(self) -> tuple[str, ...]:
        """Whose it is: the names of those that it is to have, or of the one that it had."""
        if self.wanted is not None:
            return self.wanted.models
        return () if self.moved is None else (self.moved.name,)

    def why_not_started(self, now: float) -> str | None:
        """Why it doesn't run where it should, or should have; None where nothing is known. Of a
        placement that is another by now nothing is."""
        if self.is_running or self.wanted is None:
            return None
        is_slow = self.state is State.STARTING and now - self.begun_at >= SLOW_AFTER_S
        failed_with, reason = self.failed_start or (None, None)
        known = reason if failed_with == placement(self.wanted.options) else None
        return self.adjustment.problem or known or (SLOW if is_slow else None)

    @property
    def keeps_replica(self) -> bool:
        """Whether it wants a replica that nobody asked for."""
        return self.wanted is not None and self.wanted.keeps_replica

    @property
    def to_deploy(self) -> ApplicationPlan | None:
        """What it should be deployed as; None where its models are gone from the catalog, or it
        would be started for a tag that is gone."""
        is_due = self.is_running or self.is_asked_for or self.keeps_replica
        return self.wanted if is_due else None

    def still_wants(self, deployed: ApplicationPlan) -> bool:
        """Whether that, which is being deployed, is what it should be."""
        now = self.to_deploy
        return now is not None and placement(now.options) == placement(deployed.options)

    @property
    def is_in_line(self) -> bool:
        """Whether there is nothing to adjust."""
        if not self.is_running:
            return not self.keeps_replica
        return (
            self.wanted is not None
            and self.options is not None
            and self.options == self.wanted.options
        )

    @property
    def situation(self) -> object:
        """All that an adjustment goes by."""
        wanted = None if self.wanted is None else placement(self.wanted.options)
        moved = None if self.moved is None else self.moved.name
        return wanted, self.keeps_replica, self.is_running, moved

    @property
    def is_forgettable(self) -> bool:
        """Whether it is nothing, and nobody has to do with it."""
        return (
            self.state is State.ASLEEP
            and self.wanted is None
            and not self.is_asked_for
            and not self.adjustment.is_going_on
        )


_READ_PER_REQUEST = {
    "timeout_s",
    "batching",
    "environment",
    "deployment",
    "signature",
    "shadow",
    "shadow_tolerance",
    "capture",
    "capture_drop",
}


def placement(options: ModelOptions) -> dict[str, object]:
    """The options that an application is made with; the gateway reads the others per request."""
    return options.model_dump(exclude=_READ_PER_REQUEST)


def longest_idle(applications: Iterable[Application], now: float) -> Application | None:
    """The one that may sleep and was not used for the longest time; None if none may.

    Those of models that want a replica always may not, and neither may one whose options are not
    known yet, or that is being changed.
    """
    may_sleep = [
        each
        for each in applications
        if each.is_running
        and each.options is not None
        and not each.options.min_replicas
        and not each.changing.locked()
    ]
    found = min(may_sleep, key=lambda each: each.used_at, default=None)
    return None if found is None or now - found.used_at < IDLE_AFTER_S else found
