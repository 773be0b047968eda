"""Sending again what was lost."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

import pytest

from deployments.backoff import Backoff
from deployments.model_calls.retries import Retries
from deployments.serve.ports import CallLost, Loss
from tests.support.clocks import Clock


class Wire:
    """Loses calls as told, one after the other, and answers when it has no more to lose."""

    def __init__(self, *losses: Loss) -> None:
        self._losses = list(losses)
        self.sent = 0

    async def send(self) -> str:
        self.sent += 1
        if self._losses:
            raise CallLost(self._losses.pop(0))
        return "answer"


def retries(*, most_inside: float = 3, clock: Clock | None = None) -> Retries:
    clock = clock or Clock()
    pauses = Backoff(least_s=0.05, most_s=1.0)
    return Retries(most_inside=most_inside, pauses=pauses, clock=clock, sleep=clock.sleep)


@pytest.mark.parametrize(
    "losses",
    [
        (),
        (Loss.INSIDE,),
        (Loss.NO_APPLICATION,) * 20,
        (Loss.NO_APPLICATION, Loss.INSIDE, Loss.NO_APPLICATION),
    ],
)
async def test_what_was_lost_is_sent_until_it_is_answered(losses: Iterable[Loss]) -> None:
    """Once inside a replica and any number of times with nobody there: the answer comes."""
    wire = Wire(*losses)
    assert await retries().again(wire.send, CallLost(Loss.INSIDE), until=inf) == "answer"


async def test_what_takes_its_replica_along_each_time_is_not_sent_for_ever() -> None:
    """After three replicas have gone with a call it fails."""
    wire = Wire(*(Loss.INSIDE,) * 10)
    with pytest.raises(CallLost):
        await retries(most_inside=3).again(wire.send, CallLost(Loss.INSIDE), until=inf)
    assert wire.sent == 2


@pytest.mark.parametrize("loss", [Loss.BUSY, Loss.FAILED])
async def test_what_would_end_likewise_is_not_sent_again(loss: Loss) -> None:
    """Neither at first nor later."""
    wire = Wire(loss)
    with pytest.raises(CallLost):
        await retries().again(wire.send, CallLost(loss), until=inf)
    assert wire.sent == 0
    with pytest.raises(CallLost):
        await retries().again(wire.send, CallLost(Loss.NO_APPLICATION), until=inf)
    assert wire.sent == 1


async def test_the_deadline_ends_it() -> None:
    """However often there was nobody to send it to; the pauses grow up to a second."""
    clock = Clock()
    wire = Wire(*(Loss.NO_APPLICATION,) * 100_000)
    with pytest.raises(CallLost):
        await retries(clock=clock).again(
            wire.send, CallLost(Loss.NO_APPLICATION), until=clock.now + 60
        )
    assert clock.now < 160
    assert 60 <= wire.sent < 300


async def test_other_errors_come_through() -> None:
    """What isn't of the wire is nobody's to send again."""

    async def fail() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await retries().again(fail, CallLost(Loss.INSIDE), until=inf)
