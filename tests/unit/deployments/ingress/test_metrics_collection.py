"""The numbers of all replicas, as far as they can be had."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from deployments.ingress.metrics_collection import RayMeasurements
from deployments.serve.ports import CallLost, Loss
from gateway.metrics.collection import Measured
from gateway.metrics.families import Reading
from tests.support.fake_serve import FakeReplicas


def _one_after_the_other(*answers: Any) -> Callable[[], Any]:
    left = list(answers)

    def answer() -> Any:
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    return answer


async def measured(replicas: FakeReplicas, sync: FakeReplicas) -> Measured:
    own: tuple[str, Reading] = ("own", {})
    return await RayMeasurements(
        replicas=replicas, sync=sync, own=lambda: own, patience_s=0.05
    ).measured()


async def test_a_replica_that_goes_away_is_missing() -> None:
    """The others' numbers are there, and this replica's without being asked for."""
    others = _one_after_the_other(("a", {}), CallLost(Loss.INSIDE), ("c", {}))
    found = await measured(FakeReplicas(3, reading=others), FakeReplicas(reading=dict))
    assert (set(found.replicas), found.sync) == ({"own", "a", "c"}, {})


async def test_who_is_silent_is_not_waited_for() -> None:
    """Neither the replicas nor the sync service: the rest is told in time."""
    silent = FakeReplicas(reading=lambda: asyncio.Event().wait())
    found = await measured(silent, silent)
    assert (set(found.replicas), found.sync) == ({"own"}, None)


async def test_a_sync_service_that_is_away_is_missing() -> None:
    """As is one that was never there."""
    lost = FakeReplicas(reading=_one_after_the_other(CallLost(Loss.NO_APPLICATION)))
    found = await measured(FakeReplicas(1, reading=lambda: ("a", {})), lost)
    assert (set(found.replicas), found.sync) == ({"own", "a"}, None)
