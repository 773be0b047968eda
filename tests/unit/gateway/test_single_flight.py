"""Shared work is done once, and who leaves disturbs nobody."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from random import Random

import pytest

from gateway.single_flight import SingleFlight

REQUEST: ContextVar[str | None] = ContextVar("REQUEST", default=None)


class Work:
    """Work that ends when it may, with an answer or an error; in which contexts it was begun."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun: list[str | None] = []
        self.may_end = asyncio.Event()
        self.ended = 0
        self._error = error

    async def __call__(self) -> str:
        self.begun.append(REQUEST.get())
        await self.may_end.wait()
        self.ended += 1
        if self._error is not None:
            raise self._error
        return "done"


async def asked(flights: SingleFlight[str, str], work: Work, request: str) -> str:
    REQUEST.set(request)
    return await flights.run("key", lambda: work())


@pytest.mark.parametrize("seed", range(20))
async def test_whoever_leaves_the_others_have_the_answer(seed: int) -> None:
    """Callers come and leave at random moments, the first one too: the work is begun once, in
    nobody's context, and all who stayed have its answer."""
    random, flights, work = Random(seed), SingleFlight[str, str](), Work()
    callers: list[asyncio.Task[str]] = []
    for number in range(20):
        callers.append(asyncio.create_task(asked(flights, work, f"request {number}")))
        for _ in range(random.randrange(3)):
            await asyncio.sleep(0)
        if number == 0 or random.random() < 0.5:
            random.choice(callers).cancel()
    await asyncio.sleep(0)
    work.may_end.set()
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert {type(each) for each in answers} <= {str, asyncio.CancelledError}
    assert "done" in answers
    assert work.begun == [None]


async def test_all_who_wait_have_the_error() -> None:
    """What the work raises is raised to each of them, and the next one begins anew."""
    flights, work = SingleFlight[str, str](), Work(ZeroDivisionError())
    work.may_end.set()
    callers = [asyncio.create_task(asked(flights, work, str(n))) for n in range(3)]
    for each in await asyncio.gather(*callers, return_exceptions=True):
        assert isinstance(each, ZeroDivisionError)
    assert len(work.begun) == 1
    assert not flights.going_on()
    with pytest.raises(ZeroDivisionError):
        await asked(flights, work, "later")
    assert len(work.begun) == 2


async def test_work_that_everybody_left_is_ended(recwarn: pytest.WarningsRecorder) -> None:
    """It goes on by itself; that nobody hears of its error is no warning."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
    flights, work = SingleFlight[str, str](), Work(ZeroDivisionError())
    caller = asyncio.create_task(asked(flights, work, "request"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    work.may_end.set()
    await asyncio.gather(*flights.going_on(), return_exceptions=True)
    assert work.ended == 1
    assert (complaints, list(recwarn)) == ([], [])


async def test_each_key_has_work_of_its_own() -> None:
    """Other keys neither wait nor share."""
    flights, slow, quick = SingleFlight[str, str](), Work(), Work()
    waiting = asyncio.create_task(flights.run("slow", lambda: slow()))
    quick.may_end.set()
    assert await flights.run("quick", lambda: quick()) == "done"
    assert not waiting.done()
    slow.may_end.set()
    assert await waiting == "done"


async def test_what_has_just_ended_is_joined_by_nobody() -> None:
    """Who asks in the very turn in which the work fails has work begun anew."""
    flights, work = SingleFlight[str, str](), Work(ZeroDivisionError())
    work.may_end.set()
    first = flights.start("key", lambda: work())
    while not first.done():  # noqa: ASYNC110 - a turn of the loop, no pause
        await asyncio.sleep(0)
    second = flights.start("key", lambda: work())
    assert second is not first
    await asyncio.gather(first, second, return_exceptions=True)
    assert not flights.going_on()
