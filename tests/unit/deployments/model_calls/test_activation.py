"""Asking the sync service for an application."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from deployments.model_calls.activation import SyncActivation
from deployments.model_calls.retries import Retries
from deployments.serve.ports import CallLost, Loss
from gateway.errors import ModelUnavailable
from tests.support.clocks import Clock
from tests.support.fake_serve import FakeReplicas


def activation(sync: FakeReplicas) -> SyncActivation:
    clock = Clock()
    return SyncActivation(sync, retries=Retries(most_inside=inf, clock=clock, sleep=clock.sleep))


async def test_a_refusal_is_told() -> None:
    """The sentence of the sync service, worth another try; the application where all went well."""
    sync = FakeReplicas(
        activate=lambda name, number: (name, "") if number == 1 else (None, f"No {name}.")
    )
    assert await activation(sync)("m", 1) == "m"
    with pytest.raises(ModelUnavailable, match=r"No m\.") as refused:
        await activation(sync)("m", 2)
    assert refused.value.retry_after_s > 0


async def test_a_sync_service_that_is_away_is_waited_for() -> None:
    """However often the call is lost: who waits has a deadline of his own."""
    losses = [Loss.INSIDE, Loss.NO_APPLICATION] * 50

    def activate(*_: Any) -> tuple[str, str]:
        if losses:
            raise CallLost(losses.pop())
        return "m", ""

    await activation(FakeReplicas(activate=activate))("m", 1)
    assert not losses


async def test_one_that_fails_is_told() -> None:
    """Where asking again would end likewise."""

    def activate(*_: Any) -> None:
        raise CallLost(Loss.FAILED)

    with pytest.raises(ModelUnavailable, match="can't be started"):
        await activation(FakeReplicas(activate=activate))("m", 1)
