"""Who goes to a canary, and what is counted of it."""

from __future__ import annotations

from itertools import pairwise

import pytest

from gateway.canary import Canary, CanaryRule, Draw, Trials
from gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    GatewayUnavailable,
    InternalError,
    InvalidInput,
    InvalidModelOutput,
    ModelFailed,
    ModelUnavailable,
    Overloaded,
)

SESSION = b"x-session-id"


def _draw(percent: float, model: str = "m") -> Draw:
    return Draw(model=model, header=SESSION, share=percent / 100.0)


def _who(percent: float, model: str = "m", callers: int = 4000) -> set[int]:
    """The callers who go to the canary, by their sessions."""
    draw = _draw(percent, model)
    return {n for n in range(callers) if draw.takes([(SESSION, b"caller-%d" % n)])}


def test_a_share_of_the_callers_goes_there() -> None:
    """As many as the tag says, give or take what chance does; all with 100, and none with 0."""
    assert 320 < len(_who(10)) < 480
    assert (len(_who(0)), len(_who(100))) == (0, 4000)


def test_a_caller_stays_on_one_side() -> None:
    """Whatever else is sent, however often, and in whatever process and release: the sides are
    these."""
    draw = _draw(50)
    sides = [draw.takes([(b"accept", b"*/*"), (SESSION, b"s%d" % n)]) for n in range(12)]
    assert sides == [draw.takes([(SESSION, b" s%d " % n)]) for n in range(12)]
    assert "".join("x" if side else "-" for side in sides) == "--x-x---x-xx"


def test_who_is_in_stays_in_when_the_share_grows() -> None:
    """Raising the percentage adds callers and takes none out."""
    shares = [_who(percent) for percent in (1, 5, 5.5, 20, 80)]
    for less, more in pairwise(shares):
        assert less < more


def test_each_model_has_other_callers() -> None:
    """Else the same people would try everything that is new."""
    both = _who(10, "m") & _who(10, "n")
    assert 10 < len(both) < 90


@pytest.mark.parametrize("headers", [[], [(SESSION, b"")], [(SESSION, b" ")], [(b"other", b"1")]])
def test_who_sends_no_header_is_drawn_each_time(headers: list[tuple[bytes, bytes]]) -> None:
    """By chance: some requests go there, and some don't."""
    draw = _draw(50)
    assert {draw.takes(headers) for _ in range(200)} == {True, False}
    assert not any(_draw(0).takes(headers) for _ in range(200))
    assert all(_draw(100).takes(headers) for _ in range(200))


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (ModelFailed("It failed."), True),
        (InvalidModelOutput("It answered nonsense."), True),
        (DeadlineExceeded("It is late."), True),
        (ModelUnavailable("It can't be loaded.", load_failed=True), True),
        (ModelUnavailable("Its calls end its process.", by_model=True), True),
        (ModelUnavailable("It is starting."), False),
        (GatewayUnavailable("Nobody is there."), False),
        (InternalError("A bug."), False),
        (Overloaded("Full."), False),
        (InvalidInput(()), False),
    ],
)
def test_only_what_the_model_does_wrong_counts(error: GatewayError, *, counts: bool) -> None:
    """Crashes, failures, nonsense and lateness; not what callers send, are refused, or what the
    gateway fails at."""
    trials = Trials()
    trials.note_error("t", error, lowered_to_s=None)
    assert trials.counts() == ({"t": (1, 1)} if counts else {})


def test_an_impatient_caller_says_nothing_about_the_model() -> None:
    """Who waits for less than a second, and less than the model may take, isn't counted when that
    is over; who waits longer is."""
    trials = Trials()
    trials.note_error("t", DeadlineExceeded("late"), lowered_to_s=0.01)
    assert trials.counts() == {}
    trials.note_error("t", DeadlineExceeded("late"), lowered_to_s=2.0)
    trials.note_error("t", ModelFailed("It failed."), lowered_to_s=0.01)
    assert trials.counts() == {"t": (2, 2)}


def test_counts_are_by_trial_and_forgotten_with_it() -> None:
    """Another pair of versions starts anew; each count is news."""
    trials = Trials()
    trials.note_answer("one")
    assert trials.news.is_set()
    trials.note_answer("two")
    trials.note_error("two", ModelFailed("It failed."), lowered_to_s=None)
    assert trials.counts() == {"one": (1, 0), "two": (2, 1)}
    trials.forget_all_but({"two", "three"})
    assert trials.counts() == {"two": (2, 1)}


def test_a_canary_that_has_nobody_is_a_warning() -> None:
    """With its reason; one that runs, or is the default by now, is none."""
    rule = CanaryRule(selector="challenger", percent=10)
    waiting = Canary(rule=rule, version=2, state="waiting", why="It is too early.")
    assert waiting.warning == "Nobody goes to the canary challenger: It is too early."
    for state in ("running", "ended"):
        assert Canary(rule=rule, version=2, state=state).warning is None
