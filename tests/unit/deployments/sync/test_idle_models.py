"""Who sleeps first: the one idle for the longest time, and never one in use."""

from __future__ import annotations

from deployments.sync.idle_models import IDLE_AFTER_S, Idleness
from gateway.catalog import ModelOptions

SLEEPY, AWAKE = ModelOptions(), ModelOptions(min_replicas=1)


class Clock:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_least_recently_used_sleeps_first() -> None:
    """Of those idle for long enough the one that was used the longest ago."""
    clock = Clock()
    idleness = Idleness(clock)
    for name in ("first", "second", "third"):
        idleness.note_use([name])
        clock.now += 1
    active = dict.fromkeys(("third", "second", "first"), SLEEPY)
    assert idleness.longest_idle(active) is None
    clock.now += IDLE_AFTER_S
    assert idleness.longest_idle(active) == "first"
    idleness.note_use(["first"])
    assert idleness.longest_idle(active) == "second"


def test_some_never_sleep() -> None:
    """Neither a model that wants a replica always, nor one whose options aren't known yet."""
    idleness = Idleness(Clock())
    assert idleness.longest_idle({"awake": AWAKE, "adopted": None}) is None
    assert idleness.longest_idle({"awake": AWAKE, "sleepy": SLEEPY}) == "sleepy"


def test_a_version_s_own_application_is_its_model_s() -> None:
    """What is used is told by model: it counts for all of the model's applications."""
    clock = Clock()
    idleness = Idleness(clock)
    own = "modelmux-model-m-0123456789-v2-0123abcd"
    clock.now += 2 * IDLE_AFTER_S
    idleness.note_use(["modelmux-model-m-0123456789"])
    assert idleness.longest_idle({own: SLEEPY}) is None
    clock.now += IDLE_AFTER_S
    assert idleness.longest_idle({own: SLEEPY}) == own
