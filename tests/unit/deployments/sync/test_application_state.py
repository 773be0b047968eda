"""Who sleeps first: the one idle for the longest time, and never one in use."""

from __future__ import annotations

from deployments.sync.application_state import IDLE_AFTER_S, Application, longest_idle
from deployments.sync.reconciler import Adjustment
from gateway.catalog import ModelOptions

SLEEPY, AWAKE = ModelOptions(), ModelOptions(min_replicas=1)


async def _nothing() -> None:
    return


def running(name: str, options: ModelOptions | None, *, used_at: float = 0.0) -> Application:
    """An application that runs with these options."""
    made = Application(name=name, adjustment=Adjustment(name, _nothing), used_at=used_at)
    made.run_with(options)
    return made


async def test_the_least_recently_used_sleeps_first() -> None:
    """Of those idle for long enough the one that was used the longest ago."""
    first, second, third = (running(str(n), SLEEPY, used_at=n) for n in range(3))
    applications = (third, second, first)
    assert longest_idle(applications, IDLE_AFTER_S - 1) is None
    assert longest_idle(applications, IDLE_AFTER_S + 3) is first
    first.used_at = IDLE_AFTER_S
    assert longest_idle(applications, IDLE_AFTER_S + 3) is second


async def test_some_never_sleep() -> None:
    """Neither a model that wants a replica always, nor one whose options aren't known yet, nor one
    that is being changed, nor one that isn't there."""
    awake, adopted, changed = running("a", AWAKE), running("b", None), running("c", SLEEPY)
    asleep, sleepy = running("d", SLEEPY), running("e", SLEEPY)
    asleep.sleep()
    async with changed.changing:
        assert longest_idle((awake, adopted, changed, asleep), 100.0) is None
        assert longest_idle((awake, adopted, changed, asleep, sleepy), 100.0) is sleepy
