"""Calls over handles: activated once, sent again where they are lost, told where they can't be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextvars import ContextVar
from random import Random
from typing import Any

import pytest

from deployments.application_names import SHARED, application_name
from deployments.backoff import Backoff
from deployments.model_calls.backend import RayBackend
from deployments.model_calls.retries import Retries
from deployments.placement import Placement
from deployments.serve.ports import CallLost, Loss
from gateway.contract import Frame
from gateway.deadline import Deadline
from gateway.errors import ModelUnavailable, Overloaded
from gateway.ports import Call, CallResult
from tests.support.catalogs import served, version
from tests.support.fake_serve import FakeReplicas, answered, until

REQUEST: ContextVar[str | None] = ContextVar("REQUEST", default=None)
OK = answered()
ONE_ROW = Frame(layout="table", names=("x",), columns=([1.0],), rows=1, key=())


def call(*, timeout_s: float = 30.0, name: str = "m", **options: Any) -> Call:
    """A call of a model's only version; among several replicas Ray chooses: no socket is used."""
    model = served(
        version(1, fingerprint=f"{name}/1"), name=name, options=options or {"max_replicas": 2}
    )
    return Call(
        model=model,
        version=model.versions[0],
        frame=ONE_ROW,
        params={},
        deadline=Deadline.after(timeout_s),
    )


class Bench:
    """A backend over replicas that do what `predict` says; activations end when they may."""

    def __init__(self, predict: Callable[..., Any] = lambda *_: OK) -> None:
        self.replicas = FakeReplicas(call=predict)
        self.may_start = asyncio.Event()
        self.may_start.set()
        self.activated: list[tuple[str, int, str | None]] = []
        self.connected: list[str] = []
        self.refusal: Exception | None = None
        self.is_gone = False
        pauses = Backoff(least_s=0.0, most_s=0.001)
        self.backend = RayBackend(
            self._activate, self._connect, retries=Retries(most_inside=3, pauses=pauses)
        )

    async def _activate(self, name: str, number: int) -> str:
        self.activated.append((name, number, REQUEST.get()))
        await self.may_start.wait()
        if self.refusal is not None:
            raise self.refusal
        return application_name(name)

    def _connect(self, application: str) -> FakeReplicas:
        self.connected.append(application)
        if self.is_gone:
            self.is_gone = False
            raise CallLost(Loss.NO_APPLICATION)
        return self.replicas

    async def asked(self, request: str) -> CallResult:
        REQUEST.set(request)
        return await self.backend.call(call())


async def test_the_first_call_activates_and_the_next_ones_go_straight() -> None:
    """By the model's name and the version's number, to its application, for that version."""
    bench = Bench()
    for _ in range(3):
        assert (await bench.backend.call(call())).output == ("values", [1.0])
    assert bench.activated == [("m", 1, None)]
    assert bench.connected == [application_name("m")]
    (model_id,) = set(bench.replicas.model_ids)
    assert model_id is not None
    assert model_id.startswith("1-")


@pytest.mark.parametrize("seed", range(20))
async def test_who_leaves_stops_the_activation_for_nobody(seed: int) -> None:
    """First callers of a sleeping model who leave at random moments, the first one always: it is
    activated once, in no request's context, and all who stayed are answered."""
    bench, random = Bench(), Random(seed)
    bench.may_start.clear()
    callers = []
    for number in range(8):
        callers.append(asyncio.create_task(bench.asked(str(number))))
        for _ in range(random.randrange(3)):
            await asyncio.sleep(0)
        if number == 0 or random.random() < 0.5:
            random.choice(callers).cancel()
    await asyncio.sleep(0)
    bench.may_start.set()
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert {type(each) for each in answers} == {CallResult, asyncio.CancelledError}
    assert bench.activated == [("m", 1, None)]


async def test_an_activation_that_fails_is_everybodys_answer() -> None:
    """And the next call tries anew."""
    bench = Bench()
    bench.refusal = ModelUnavailable("There is no room.", retry_after_s=2.0)
    calls = [bench.backend.call(call()) for _ in range(3)]
    for answer in await asyncio.gather(*calls, return_exceptions=True):
        assert answer is bench.refusal
    assert len(bench.activated) == 1
    bench.refusal = None
    await bench.backend.call(call())
    assert len(bench.activated) == 2


async def test_a_start_beyond_the_deadline_is_still_starting() -> None:
    """The caller hears so in time, and the start goes on for the next one."""
    bench = Bench()
    bench.may_start.clear()
    with pytest.raises(ModelUnavailable, match="still starting"):
        await bench.backend.call(call(timeout_s=0.05))
    bench.may_start.set()
    await bench.backend.call(call())
    assert len(bench.activated) == 1


def losing(*losses: Loss) -> Callable[..., Any]:
    """Loses calls as told, one after the other, and then answers."""
    left = list(losses)

    def predict(*_: Any) -> Any:
        if left:
            raise CallLost(left.pop(0))
        return OK

    return predict


async def test_a_call_that_was_lost_is_sent_again() -> None:
    """The replica went away with it: another one answers."""
    bench = Bench(losing(Loss.INSIDE, Loss.INSIDE))
    await bench.backend.call(call())
    assert bench.replicas.calls["call"] == 3
    assert len(bench.activated) == 1


async def test_an_application_that_is_gone_is_made_again() -> None:
    """Noticed by a call, or when it is connected to."""
    bench = Bench(losing(Loss.NO_APPLICATION))
    bench.is_gone = True
    await bench.backend.call(call())
    assert len(bench.activated) == 3


@pytest.mark.parametrize(
    ("losses", "error", "told"),
    [
        ((Loss.BUSY,), Overloaded, "busy"),
        ((Loss.FAILED,), ModelUnavailable, "do not answer"),
        ((Loss.INSIDE,) * 10, ModelUnavailable, "do not answer"),
    ],
)
async def test_what_is_not_sent_again_is_told(
    losses: tuple[Loss, ...], error: type[Exception], told: str
) -> None:
    """As an error of ours, worth another try later."""
    with pytest.raises(error, match=told) as raised:
        await Bench(losing(*losses)).backend.call(call())
    assert getattr(raised.value, "retry_after_s", 0) > 0


async def test_no_replica_until_the_deadline_is_still_starting() -> None:
    """A call that was lost once, and then waits for a replica in vain."""
    lose = losing(Loss.INSIDE)

    async def predict(*arguments: Any) -> Any:
        lose(*arguments)
        await asyncio.Event().wait()

    with pytest.raises(ModelUnavailable, match="still starting"):
        await Bench(predict).backend.call(call(timeout_s=0.05))


async def test_a_caller_who_leaves_is_not_sent_again() -> None:
    """Cancelled while the replica is at work: that is no loss."""
    bench = Bench(lambda *_: asyncio.Event().wait())
    caller = asyncio.create_task(bench.backend.call(call()))
    while not bench.replicas.calls["call"]:  # noqa: ASYNC110 - a turn of the loop, no pause
        await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert bench.replicas.calls["call"] == 1


class Applications:
    """A backend over two shared replicas and models' own; `answered` says which were asked."""

    def __init__(self) -> None:
        self.answered: list[str] = []
        self.can_load = asyncio.Event()
        self.activated: list[str] = []
        self.shared = FakeReplicas(call=self._call(SHARED), load=self._load)
        self.placement = Placement(shared_replicas=2)
        self.backend = RayBackend(self._activate, self._connect, placement=self.placement)
        self.wanted = SHARED

    def _call(self, application: str) -> Callable[..., Any]:
        def answer(*_: Any) -> Any:
            self.answered.append(application)
            return OK

        return answer

    async def _load(self, *_: Any) -> tuple[str, Any]:
        await self.can_load.wait()
        return ("ok", None)

    async def _activate(self, name: str, number: int) -> str:
        self.activated.append(name)
        return application_name(name) if self.wanted != SHARED else SHARED

    def _connect(self, application: str) -> FakeReplicas:
        if application == SHARED:
            return self.shared
        return FakeReplicas(call=self._call(application), load=self._load)


async def test_models_that_share_an_application_share_its_activation() -> None:
    """The second model's first request asks nobody whether it runs."""
    bench = Applications()
    for name in ("a", "b"):
        await bench.backend.call(call(name=name, deployment="shared"))
    assert (bench.answered, bench.activated) == ([SHARED] * 2, ["a"])
    assert len(set(bench.shared.model_ids)) == 2


async def test_a_model_that_moves_is_answered_where_it_was_until_it_is_loaded() -> None:
    """Its tag gives it to another application: no request waits for the load there."""
    bench = Applications()
    bench.wanted = "own"
    await bench.backend.call(call())
    bench.wanted = SHARED
    for _ in range(5):
        await bench.backend.call(call(deployment="shared"))
        await asyncio.sleep(0)
    assert bench.answered == [application_name("m")] * 6
    bench.can_load.set()
    await until(lambda: bench.backend._answered_by["m"] == SHARED)
    await bench.backend.call(call(deployment="shared"))
    assert bench.answered[-1] == SHARED


async def test_a_model_whose_application_moved_is_called_where_the_sync_service_says() -> None:
    """An ingress whose catalog is a moment old asks for one that isn't to be there any more."""
    bench = Applications()
    await bench.backend.call(call())
    assert bench.answered == [SHARED]


async def test_a_model_that_cannot_be_loaded_elsewhere_stays_where_it_is() -> None:
    """A tag never takes down what was answering."""
    bench = Applications()
    bench.shared.methods["load"] = lambda *_: ("load_failed", {})
    bench.wanted = "own"
    await bench.backend.call(call())
    bench.wanted = SHARED
    await bench.backend.call(call(deployment="shared"))
    await until(lambda: bench.shared.calls["load"])
    await bench.backend.call(call(deployment="shared"))
    assert bench.answered == [application_name("m")] * 3


async def streamed(bench: Bench, *outcomes: Any) -> list[Any]:
    """The values of a stream whose replicas each give the next list of outcomes."""
    turns = iter(outcomes)

    async def stream(*_: Any) -> AsyncGenerator[Any]:
        for outcome in next(turns):
            if isinstance(outcome, CallLost):
                raise outcome
            yield outcome

    bench.replicas.methods["stream"] = stream
    return [piece.output[1][0] async for piece in bench.backend.stream(call())]


def piece(value: Any) -> Any:
    return answered("event", ("values", [value]))


async def test_a_stream_is_what_comes_until_its_end() -> None:
    """The pieces in order, and nothing after the end."""
    assert await streamed(Bench(), [piece(1), piece(2), answered("end"), piece(3)]) == [1, 2]


async def test_a_stream_that_is_lost_before_it_began_is_asked_again() -> None:
    """Nobody has seen anything of it."""
    bench = Bench()
    lost = [CallLost(Loss.INSIDE)]
    assert await streamed(bench, lost, [piece(1), answered("end")]) == [1]
    assert bench.replicas.calls["stream"] == 2


async def test_a_stream_that_is_lost_midway_is_not_asked_again() -> None:
    """What has come can't be taken back."""
    bench = Bench()
    with pytest.raises(ModelUnavailable):
        await streamed(bench, [piece(1), ("lost", None)], [piece(1), answered("end")])
    assert bench.replicas.calls["stream"] == 1
