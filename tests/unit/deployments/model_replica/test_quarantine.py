"""Which versions are not tried for a while, and what ends that."""

from __future__ import annotations

import pytest

from deployments.model_replica.quarantine import STRIKES, Quarantine
from tests.support.clocks import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def quarantine(clock: Clock) -> Quarantine:
    return Quarantine(retry_after_s=30.0, clock=clock)


def left_s(quarantine: Quarantine) -> float:
    suspension = quarantine.suspension("v")
    return 0.0 if suspension is None else suspension.left_s


def test_a_failed_load_is_not_tried_at_once_and_less_and_less_often(
    quarantine: Quarantine, clock: Clock
) -> None:
    """Twice as long with each time in a row, up to eight times; a load that goes well ends it."""
    for expected in (30.0, 60.0, 120.0, 240.0, 240.0):
        quarantine.load_failed("v", "ImportError")
        suspension = quarantine.suspension("v")
        assert suspension is not None
        assert (suspension.kind, suspension.left_s) == ("load", expected)
        assert suspension.reason == "ImportError"
        clock.now += expected
        assert quarantine.suspension("v") is None
    quarantine.loaded("v")
    quarantine.load_failed("v", "ImportError")
    assert left_s(quarantine) == 30.0


@pytest.mark.parametrize("happens", ["died", "hung"])
def test_what_may_be_somebody_else_s_doing_takes_three(
    quarantine: Quarantine, happens: str
) -> None:
    """A process may be killed by a person, and a call may hang once."""
    for count in range(1, STRIKES + 1):
        if happens == "died":
            quarantine.died("v", "call", "signal 11")
        else:
            quarantine.hung("v", "its calls hung")
        assert (left_s(quarantine) > 0) is (count == STRIKES)
    suspension = quarantine.suspension("v")
    assert suspension is not None
    assert suspension.kind == "call"


@pytest.mark.parametrize(("kind", "apart_s"), [("call", 31.0), ("load", 301.0)])
def test_strikes_are_forgotten(
    quarantine: Quarantine, clock: Clock, kind: str, apart_s: float
) -> None:
    """Two a minute are none too many for a call, two in ten minutes for a load."""
    for _ in range(10):
        quarantine.died("v", kind, "signal 9")  # type: ignore[arg-type]
        clock.now += apart_s
        assert quarantine.suspension("v") is None


def test_an_answer_takes_back_what_hung_but_not_who_ended_a_process(
    quarantine: Quarantine,
) -> None:
    """A version may answer thousands of requests and end its process on one."""
    for _ in range(STRIKES - 1):
        quarantine.hung("v", "its calls hung")
    quarantine.answered("v")
    quarantine.hung("v", "its calls hung")
    assert quarantine.suspension("v") is None
    quarantine.answered("v")
    for _ in range(STRIKES):
        quarantine.died("v", "call", "signal 11")
        quarantine.answered("other")
    assert left_s(quarantine) == 30.0


def test_one_that_comes_back_and_goes_wrong_again_is_suspended_at_once(
    quarantine: Quarantine, clock: Clock
) -> None:
    """Until it has answered; then it has three strikes again."""
    for _ in range(STRIKES):
        quarantine.died("v", "call", "signal 11")
    clock.now += 30.0
    quarantine.loaded("v")  # says nothing about its calls
    quarantine.died("v", "call", "signal 11")
    assert left_s(quarantine) == 60.0
    clock.now += 60.0
    quarantine.answered("v")
    quarantine.died("v", "call", "signal 11")
    assert quarantine.suspension("v") is None


def test_what_happens_to_one_version_is_that_one_s(quarantine: Quarantine) -> None:
    """Each has a process of its own."""
    quarantine.load_failed("v", "ImportError")
    assert quarantine.suspension("other") is None
