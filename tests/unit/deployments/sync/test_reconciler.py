"""Adjustments of applications: nobody waits for another's, and what fails is tried again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from random import Random

from deployments.backoff import Backoff
from deployments.sync.reconciler import SLOW_AFTER_S, ActivationFailed, Adjustments, TakenBack

AT_ONCE = Backoff(least_s=0.0, most_s=0.0)
NEVER = Backoff(least_s=3600.0, most_s=3600.0)


class Applications:
    """Applications that come up, or not; each trial waits until it may begin."""

    def __init__(self) -> None:
        self.trials: Counter[str] = Counter()
        self.failing: dict[str, Exception] = {}
        self.stuck: dict[str, asyncio.Event] = {}
        self.most_at_once: Counter[str] = Counter()
        self._at_work: Counter[str] = Counter()
        self._news = asyncio.Condition()

    async def adjust(self, name: str) -> None:
        self.trials[name] += 1
        self._at_work[name] += 1
        self.most_at_once[name] = max(self.most_at_once[name], self._at_work[name])
        async with self._news:
            self._news.notify_all()
        try:
            if name in self.stuck:
                await self.stuck[name].wait()
            if name in self.failing:
                raise self.failing[name]
        finally:
            self._at_work[name] -= 1

    async def tried(self, name: str, times: int) -> None:
        """Until that application was tried so many times in all."""
        async with asyncio.timeout(5), self._news:
            await self._news.wait_for(lambda: self.trials[name] >= times)


async def until(condition: Callable[[], object]) -> None:
    """Let the tasks go on until it is true."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - a turn of the loop for others, no pause
            await asyncio.sleep(0)


async def test_one_that_takes_long_holds_up_no_other() -> None:
    """While one application's trial goes on, another's is done; both are begun without waiting."""
    there = Applications()
    there.stuck["big"] = asyncio.Event()
    adjustments = Adjustments(there.adjust)
    adjustments.see_to("big", 1)
    adjustments.see_to("small", 1)
    await until(lambda: there.trials["small"] and not adjustments.is_going_on("small"))
    assert adjustments.is_going_on("big")
    there.stuck["big"].set()
    await until(lambda: not adjustments.is_going_on("big"))
    assert there.trials == {"big": 1, "small": 1}


async def test_what_failed_is_not_tried_at_every_look() -> None:
    """However often the same is asked for, one trial is made until the pause is over."""
    there = Applications()
    there.failing["big"] = ActivationFailed("There is no room.")
    adjustments = Adjustments(there.adjust, pauses=NEVER)
    for _ in range(100):
        adjustments.see_to("big", 1)
        await asyncio.sleep(0)
    assert there.trials["big"] == 1
    assert adjustments.problems() == {"big": "There is no room. It is tried again by itself."}


async def test_what_failed_is_tried_again_by_itself() -> None:
    """Nobody has to ask again: once it works the task is over and nothing is said any more."""
    there = Applications()
    there.failing["big"] = ActivationFailed("There is no room.")
    adjustments = Adjustments(there.adjust, pauses=AT_ONCE)
    adjustments.see_to("big", 1)
    await there.tried("big", 5)
    del there.failing["big"]
    await until(lambda: not adjustments.is_going_on("big"))
    assert adjustments.problems() == {}


async def test_pauses_grow_with_the_failures_in_a_row() -> None:
    """Each failure counts, and another situation starts anew."""
    drawn: list[int] = []

    class Noted(Backoff):
        def pause_s(self, failures: int, random: Random) -> float:
            drawn.append(failures)
            return 0.0 if failures < 4 else 3600.0

    there = Applications()
    there.failing["big"] = ActivationFailed("There is no room.")
    adjustments = Adjustments(there.adjust, pauses=Noted(least_s=0, most_s=0))
    adjustments.see_to("big", 1)
    await until(lambda: len(drawn) == 4)
    adjustments.see_to("big", 2)
    await until(lambda: len(drawn) == 8)
    assert drawn == [1, 2, 3, 4, 1, 2, 3, 4]


async def test_another_situation_is_tried_at_once() -> None:
    """Nobody waits for the end of a pause who has mended what was wrong."""
    there = Applications()
    there.failing["big"] = ActivationFailed("There is no room.")
    adjustments = Adjustments(there.adjust, pauses=NEVER)
    adjustments.see_to("big", "four GPUs")
    await until(adjustments.problems)
    del there.failing["big"]
    adjustments.see_to("big", "none")
    await until(lambda: not adjustments.is_going_on("big"))
    assert there.trials["big"] == 2


async def test_what_changes_during_a_trial_is_seen_to_after_it() -> None:
    """One trial at a time for one application, and none is left out at the end."""
    there = Applications()
    there.stuck["m"] = asyncio.Event()
    adjustments = Adjustments(there.adjust)
    adjustments.see_to("m", 1)
    await there.tried("m", 1)
    adjustments.see_to("m", 2)
    adjustments.see_to("m", 3)
    there.stuck.pop("m").set()
    await until(lambda: not adjustments.is_going_on("m"))
    assert there.trials["m"] == 2
    assert there.most_at_once["m"] == 1


async def test_what_was_taken_back_is_not_tried_again() -> None:
    """Each trial would take down what answers: only other tags make another one."""
    there = Applications()
    there.failing["m"] = TakenBack("It runs as before.")
    adjustments = Adjustments(there.adjust, pauses=AT_ONCE)
    adjustments.see_to("m", 1)
    await until(adjustments.problems)
    for _ in range(100):
        adjustments.see_to("m", 1)
        await asyncio.sleep(0)
    assert there.trials["m"] == 1
    assert adjustments.problems() == {"m": "It runs as before."}
    del there.failing["m"]
    adjustments.see_to("m", 2)
    await until(lambda: not adjustments.is_going_on("m"))
    assert adjustments.problems() == {}


async def test_an_unforeseen_error_ends_nothing() -> None:
    """Whatever Serve raises, the next trial comes, and people are told."""
    there = Applications()
    there.failing["m"] = RuntimeError("the controller is restarting")
    adjustments = Adjustments(there.adjust, pauses=AT_ONCE)
    adjustments.see_to("m", 1)
    await there.tried("m", 3)
    assert "the log says why" in adjustments.problems()["m"]
    del there.failing["m"]
    await until(lambda: not adjustments.is_going_on("m"))


async def test_a_trial_that_takes_long_is_told() -> None:
    """Before it fails, after seconds that are more than most trials take."""
    now = [0.0]
    there = Applications()
    there.stuck["big"] = asyncio.Event()
    adjustments = Adjustments(there.adjust, clock=lambda: now[0])
    adjustments.see_to("big", 1)
    await there.tried("big", 1)
    assert adjustments.problems() == {}
    now[0] = SLOW_AFTER_S
    assert adjustments.problems() == {"big": "It takes long to start its processes."}
    there.stuck["big"].set()
    await until(lambda: not adjustments.is_going_on("big"))
    assert adjustments.problems() == {}
