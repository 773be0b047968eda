"""What an ingress replica tells the sync service of canaries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from deployments.ingress.canary_reports import CanaryReports
from deployments.serve.ports import CallLost, Loss
from gateway.canary import Canary, CanaryRule, Trials
from tests.support.catalogs import catalog, served, version
from tests.support.fake_serve import FakeReplicas, until

RULE = CanaryRule(selector="2", percent=10)
CANARY = Canary(rule=RULE, version=2, state="running", trial="t")
CATALOG = catalog(served(version(1), version(2), default=1, canary=CANARY))


class Listener:
    """A sync service that keeps what it is told."""

    def __init__(self, *lost: CallLost) -> None:
        self.lost = list(lost)
        self.told: list[tuple[str, Any]] = []
        self.replicas = FakeReplicas(note_trials=self.note)

    def note(self, replica: str, counts: Any) -> None:
        if self.lost:
            raise self.lost.pop()
        self.told.append((replica, counts))


@asynccontextmanager
async def _reporting(
    listener: Listener, trials: Trials, *, again_s: float = 60.0
) -> AsyncIterator[None]:
    reports = CanaryReports(
        listener.replicas, trials, lambda: CATALOG, pause_s=0.0, again_s=again_s
    )
    task = asyncio.create_task(reports.follow())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_what_is_counted_is_told_soon() -> None:
    """All of it each time, by one name of the process; what the catalog has no more is left out."""
    listener, trials = Listener(), Trials()
    async with _reporting(listener, trials):
        trials.note_answer("t")
        trials.note_answer("over")
        await until(lambda: listener.told)
        trials.note_answer("t")
        await until(lambda: len(listener.told) > 1)
    assert [counts for _, counts in listener.told] == [{"t": (1, 0)}, {"t": (2, 0)}]
    assert len({replica for replica, _ in listener.told}) == 1


async def test_what_was_lost_is_told_again() -> None:
    """A sync service that was away, or was restarted and knows nothing, hears it soon."""
    listener, trials = Listener(CallLost(Loss.INSIDE)), Trials()
    async with _reporting(listener, trials, again_s=0.001):
        trials.note_answer("t")
        async with asyncio.timeout(5):
            while len(listener.told) < 2:  # noqa: ASYNC110 - real time has to pass
                await asyncio.sleep(0.001)
    assert {tuple(counts.items()) for _, counts in listener.told} == {(("t", (1, 0)),)}


async def test_a_gateway_without_canaries_tells_nothing() -> None:
    """The sync service hears of nobody."""
    listener = Listener()
    async with _reporting(listener, Trials(), again_s=0.001):
        await asyncio.sleep(0.02)
    assert listener.replicas.calls["note_trials"] == 0
