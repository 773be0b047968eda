"""Sending again what was lost."""

from __future__ import annotations

import time
from collections.abc import Iterable
from math import inf

import pytest

from deployments.backoff import Backoff
from deployments.model_calls.resending import Loss, Resending


class Lost(Exception):
    """A call that is lost as `loss` says."""

    def __init__(self, loss: Loss | None) -> None:
        super().__init__(loss)
        self.loss = loss


class Wire:
    """Loses calls as told, one after the other, and answers when it has no more to lose."""

    def __init__(self, *losses: Loss | None) -> None:
        self._losses = list(losses)
        self.sent = 0

    async def send(self) -> str:
        self.sent += 1
        if self._losses:
            raise Lost(self._losses.pop(0))
        return "answer"


def resending(*, most_inside: float = 3) -> Resending:
    return Resending(
        errors=(Lost,),
        loss_of=lambda error: error.loss if isinstance(error, Lost) else None,
        pauses=Backoff(least_s=0.0001, most_s=0.001),
        most_inside=most_inside,
    )


@pytest.mark.parametrize(
    "losses", [(), (Loss.INSIDE,), (Loss.UNSENT,) * 20, (Loss.UNSENT, Loss.INSIDE, Loss.UNSENT)]
)
async def test_what_was_lost_is_sent_until_it_is_answered(losses: Iterable[Loss]) -> None:
    """Once inside a replica and any number of times with nobody there: the answer comes."""
    wire = Wire(*losses)
    assert await resending().again(wire.send, Lost(Loss.INSIDE), until=inf) == "answer"


async def test_what_takes_its_replica_along_each_time_is_not_sent_for_ever() -> None:
    """After three replicas have gone with a call it fails."""
    wire = Wire(*(Loss.INSIDE,) * 10)
    with pytest.raises(Lost):
        await resending(most_inside=3).again(wire.send, Lost(Loss.INSIDE), until=inf)
    assert wire.sent == 2


async def test_what_is_no_loss_is_not_sent_again() -> None:
    """Neither at first nor later."""
    wire = Wire(None)
    with pytest.raises(Lost):
        await resending().again(wire.send, Lost(None), until=inf)
    assert wire.sent == 0
    with pytest.raises(Lost):
        await resending().again(wire.send, Lost(Loss.UNSENT), until=inf)
    assert wire.sent == 1


async def test_the_deadline_ends_it() -> None:
    """However often there was nobody to send it to."""
    wire = Wire(*(Loss.UNSENT,) * 100_000)
    until = time.monotonic() + 0.05
    with pytest.raises(Lost):
        await resending().again(wire.send, Lost(Loss.UNSENT), until=until)
    assert time.monotonic() < until + 1
    assert wire.sent > 1


async def test_other_errors_come_through() -> None:
    """What isn't of the wire is nobody's to send again."""

    async def fail() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await resending().again(fail, Lost(Loss.INSIDE), until=inf)
