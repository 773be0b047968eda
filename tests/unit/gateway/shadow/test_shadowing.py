"""Shadows over a backend that behaves: who is asked what, what is counted, and what never waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import httpx
import numpy as np
import pytest

from gateway.catalog import Catalog, ModelOptions, ServedModel, Shadow
from gateway.errors import ModelFailed, ModelUnavailable
from gateway.http.app import create_app
from gateway.http.predict.body import HttpLimits
from gateway.ports import Call, CallResult
from gateway.prediction import PredictionService
from gateway.shadow import asker
from gateway.shadow.budget import Budget
from gateway.shadow.shadowing import Shadowing, ShadowLimits
from gateway.shadow_figures import ShadowFigures
from tests.support.catalogs import catalog, served, signature, version
from tests.support.static_feed import StaticFeed

Answer = Callable[[np.ndarray], Any]
SKLEARN = "mlflow.sklearn"


def model(text: str | None = None, flavor: str = SKLEARN, **fields: Any) -> ServedModel:
    versions = (
        version(1, flavor=flavor),
        version(2, flavor=flavor) if text is None else version(2, text, flavor=flavor),
    )
    fields.setdefault("shadow", Shadow(number=2))
    return served(*versions, default=1, **fields)


class Models:
    """Version 1 doubles x; `shadow` is what version 2 does. Remembers the calls aside."""

    def __init__(self, shadow: Callable[[Call], Awaitable[CallResult]]) -> None:
        self.shadow = shadow
        self.aside: list[list[float]] = []

    async def call(self, call: Call) -> CallResult:
        if not call.aside:
            return doubled(call)
        assert call.version.number == 2
        self.aside.append(list(call.frame.columns[0]))
        return await self.shadow(call)

    async def stream(self, call: Call) -> AsyncGenerator[CallResult]:
        for word in ("a", "b") if not call.aside else ("a", "c"):
            yield CallResult(output=("values", [word]), timings_ms={"model": 1.0})


def doubled(call: Call, factor: float = 2.0) -> CallResult:
    y = np.asarray(call.frame.columns[0]) * factor
    return CallResult(output=("columns", ["y"], [y]), timings_ms={"model": 2.0})


async def same(call: Call) -> CallResult:
    return doubled(call)


class Bench:
    """The application with a model that has a shadow."""

    def __init__(
        self,
        shadow: Callable[[Call], Awaitable[CallResult]] = same,
        *,
        now: Catalog | None = None,
        limits: ShadowLimits | None = None,
        draw: Callable[[], float] = lambda: 0.0,
        inside: Callable[[str], int] = lambda model: 0,
    ) -> None:
        self.models = Models(shadow)
        self.feed = StaticFeed(now or catalog(model()))

        async def at_once(seconds: float) -> None:
            await asyncio.sleep(0)

        self.shadowing = Shadowing(
            self.models,
            streaming=self.models,
            limits=limits,
            draw=draw,
            inside=inside,
            budget=Budget(sleep=at_once),
        )
        service = PredictionService(
            feed=self.feed,
            submit=self.models.call,
            streaming=self.models,
            default_timeout_s=5.0,
            shadowing=self.shadowing,
        )
        app = create_app(service=service, feed=self.feed, limits=HttpLimits(max_body_bytes=1 << 24))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://gw")

    async def ask(self, *xs: float, **headers: str) -> Any:
        response = await self.client.post(
            "/models/m/predict", json=[{"x": x} for x in xs], headers=headers
        )
        response.raise_for_status()
        return response.json()

    async def figures(self) -> ShadowFigures:
        async with asyncio.timeout(10):
            await self.shadowing.settle()
        return self.shadowing.take()["m"]


async def test_a_shadow_is_asked_the_same_rows_after_the_answer() -> None:
    """Equal answers are counted as such, with the times that both took."""
    bench = Bench()
    assert await bench.ask(1.0, 2.0) == [{"y": 2.0}, {"y": 4.0}]
    told = await bench.figures()
    assert bench.models.aside == [[1.0, 2.0]]
    assert told.outcomes == {"equal": 1}
    assert (told.pair.default, told.pair.shadow) == (1, 2)
    assert told.columns["y"].rows == told.columns["y"].equal == 2
    assert told.default_s.most == pytest.approx(0.002)
    assert told.agreement == 1.0


async def test_a_row_that_differs_is_kept_with_both_answers() -> None:
    """By the request's id, the row and the column, with the difference among the figures."""

    async def off(call: Call) -> CallResult:
        y = np.asarray(call.frame.columns[0]) * 2
        return CallResult(output=("columns", ["y"], [y + (y > 3)]))

    bench = Bench(off)
    await bench.ask(1.0, 2.0, **{"X-Request-ID": "mine"})
    told = await bench.figures()
    assert told.outcomes == {"different": 1}
    (kept,) = told.disagreements
    assert (kept.request_id, kept.row, kept.columns) == ("mine", 1, ("y",))
    assert (kept.default, kept.shadow, kept.inputs) == ({"y": 4.0}, {"y": 5.0}, None)
    assert told.columns["y"].differences.most == 1.0


async def test_what_was_asked_is_kept_only_where_requests_are() -> None:
    """Inputs are there where the shadow's terms say so, without the columns that are left out."""
    wide = signature(("x", "double"), ("secret", "string"))

    async def other(call: Call) -> CallResult:
        return doubled(call, 3.0)

    versions = (version(1, wide), version(2, wide))
    shadow = Shadow(number=2, keeps_inputs=True, left_out=("secret",))
    bench = Bench(other, now=catalog(served(*versions, default=1, shadow=shadow)))
    response = await bench.client.post("/models/m/predict", json={"x": 1.0, "secret": "s"})
    assert response.status_code == 200
    (kept,) = (await bench.figures()).disagreements
    assert kept.inputs == {"x": 1.0}


async def test_only_requests_that_name_no_version_are_asked_again() -> None:
    """Whoever names one is asked for himself alone."""
    bench = Bench()
    await bench.ask(1.0, **{"X-Model-Version": "1"})
    await bench.ask(1.0, **{"X-Model-Version": "2"})
    await bench.shadowing.settle()
    assert bench.models.aside == []
    assert bench.shadowing.take() == {}


async def test_so_many_of_a_hundred_are_asked() -> None:
    """The share is the tag's; the others aren't counted at all."""
    draws = iter([0.05, 0.2, 0.099, 0.5])
    bench = Bench(now=catalog(model(shadow=Shadow(number=2, percent=10))), draw=lambda: next(draws))
    for x in range(4):
        await bench.ask(float(x))
    assert (await bench.figures()).outcomes == {"equal": 2}


async def test_requests_that_wait_share_a_call() -> None:
    """Each has its own rows of the answer, and its own outcome."""
    gate = asyncio.Event()

    async def slow(call: Call) -> CallResult:
        await gate.wait()
        y = np.asarray(call.frame.columns[0]) * 2
        return CallResult(output=("columns", ["y"], [y + (y == 6)]))

    bench = Bench(slow)
    for x in range(6):
        await bench.ask(float(x), **{"X-Request-ID": f"r{x}"})
    gate.set()
    told = await bench.figures()
    assert sorted(x for rows in bench.models.aside for x in rows) == [0, 1, 2, 3, 4, 5]
    assert max(map(len, bench.models.aside)) >= 5
    assert told.outcomes == {"equal": 5, "different": 1}
    assert [each.request_id for each in told.disagreements] == ["r3"]


async def test_what_finds_no_room_is_dropped() -> None:
    """The queue is bounded in number and in bytes, and callers are answered all the same."""
    never = asyncio.Event()

    async def hangs(call: Call) -> CallResult:
        await never.wait()
        return doubled(call)

    bench = Bench(hangs, limits=ShadowLimits(requests=3, request_bytes=200))
    await bench.ask(0.0)
    await asyncio.sleep(0)
    for x in range(5):
        assert await bench.ask(float(x)) == [{"y": 2.0 * x}]
    await bench.ask(*map(float, range(100)))  # of more bytes than one may have
    assert bench.shadowing.take()["m"].outcomes == {"dropped": 3}
    never.set()
    assert (await bench.figures()).outcomes == {"equal": 4}


async def test_a_shadow_that_fails_alone_spoils_no_other() -> None:
    """A call that fails is taken apart, and what fails alone is counted with its reason."""
    gate = asyncio.Event()

    async def fails_on_two(call: Call) -> CallResult:
        await gate.wait()
        if 2.0 in call.frame.columns[0]:
            raise ModelFailed("It failed on this.")
        return doubled(call)

    bench = Bench(fails_on_two)
    for x in range(5):
        await bench.ask(float(x))
    gate.set()
    told = await bench.figures()
    assert told.outcomes == {"equal": 4, "failed": 1}
    assert told.failure is not None
    assert told.failure.reason == "It failed on this."


@pytest.mark.parametrize(
    "output",
    [
        ("columns", ["y"], [["no number"]]),
        ("columns", ["other", "more"], [[1.0], [2.0]]),
        ("values", [{"deep": object()}]),
    ],
)
async def test_nonsense_is_a_failure(output: Any) -> None:
    """An answer that doesn't fit the contract is compared with nothing."""

    async def nonsense(call: Call) -> CallResult:
        return CallResult(output=output)

    bench = Bench(nonsense, now=catalog(model(flavor="custom")))
    assert await bench.ask(1.0) == [{"y": 2.0}]
    assert (await bench.figures()).outcomes == {"failed": 1}


async def test_an_error_that_nobody_has_thought_of_is_a_failure() -> None:
    """Whatever is raised beside the requests is counted, and the next one is asked."""
    errors = [RuntimeError("a bug"), ConnectionResetError()]

    async def fails(call: Call) -> CallResult:
        if errors:
            raise errors.pop()
        return doubled(call)

    bench = Bench(fails, now=catalog(model(flavor="custom")))
    for x in range(3):
        await bench.ask(float(x))
    assert (await bench.figures()).outcomes == {"failed": 2, "equal": 1}


async def test_what_comes_after_the_deadline_is_late() -> None:
    """The model's own deadline counts."""

    async def hangs(call: Call) -> CallResult:
        await asyncio.Event().wait()
        return doubled(call)

    options = ModelOptions(timeout_s=0.05)
    bench = Bench(hangs, now=catalog(model(options=options)))
    await bench.ask(1.0)
    assert (await bench.figures()).outcomes == {"late": 1}


async def test_a_shadow_that_is_starting_is_waited_for() -> None:
    """What was asked too early is asked again, and counted once."""
    starting = [ModelUnavailable("It is starting.", retry_after_s=0.01)]

    async def starts(call: Call) -> CallResult:
        if starting:
            raise starting.pop()
        return doubled(call)

    bench = Bench(starts)
    await bench.ask(1.0)
    told = await bench.figures()
    assert told.outcomes == {"equal": 1}
    assert len(bench.models.aside) == 2


async def test_one_that_cant_be_loaded_has_nothing_waiting() -> None:
    """What waits is counted as failed, and until it is tried again all else is dropped."""

    async def broken(call: Call) -> CallResult:
        raise ModelUnavailable("It can't be loaded.", retry_after_s=20.0, load_failed=True)

    bench = Bench(broken)
    await bench.ask(1.0)
    told = await bench.figures()
    assert told.outcomes == {"failed": 1}
    assert told.failure is not None
    await bench.ask(2.0)
    assert (await bench.figures()).outcomes == {"dropped": 1}
    assert len(bench.models.aside) == 1


async def test_another_pair_begins_anew() -> None:
    """A default that moves, or other artifacts under a number, are never added to what was."""
    bench = Bench()
    await bench.ask(1.0)
    first = await bench.figures()
    changed = served(
        version(1, flavor=SKLEARN),
        version(2, flavor=SKLEARN, fingerprint="other"),
        default=1,
        shadow=Shadow(number=2),
    )
    bench.feed.catalog = catalog(changed, generation=2)
    await bench.ask(1.0)
    second = await bench.figures()
    assert first.pair != second.pair
    assert second.outcomes == {"equal": 1}


async def test_a_shadow_reads_requests_by_its_own_contract() -> None:
    """One that needs less than the default gets what it knows of the same body."""
    wide, narrow = signature(("x", "double"), ("z", "string")), signature(("x", "double"))
    versions = (version(1, wide), version(2, narrow))
    bench = Bench(now=catalog(served(*versions, default=1, shadow=Shadow(number=2))))
    response = await bench.client.post("/models/m/predict", json=[{"x": 1.0, "z": "left out"}])
    assert response.json() == [{"y": 2.0}]
    assert (await bench.figures()).outcomes == {"equal": 1}
    assert bench.models.aside == [[1.0]]


async def test_while_the_model_is_busy_its_shadow_rests() -> None:
    """A shadow is at work a quarter of the time then, however quick it is."""

    async def takes_a_while(call: Call) -> CallResult:
        await asyncio.sleep(0.02)
        return doubled(call)

    bench = Bench(takes_a_while, inside=lambda name: 9, now=catalog(model(flavor="custom")))
    loop = asyncio.get_running_loop()
    began = loop.time()
    for x in range(4):
        await bench.ask(float(x))
    await bench.figures()
    assert loop.time() - began >= 4 * 0.08


async def test_streams_are_compared_where_the_tag_forces_it() -> None:
    """The events of both as one value; without force a stream has no shadow."""
    for forced, outcomes in ((True, {"different": 1}), (False, None)):
        versions = (version(1, streamable=True), version(2, streamable=True))
        shadow = Shadow(number=2, forced=forced)
        bench = Bench(now=catalog(served(*versions, default=1, shadow=shadow)))
        response = await bench.client.post(
            "/models/m/predict", json=[{"x": 1.0}], headers={"Accept": "text/event-stream"}
        )
        assert response.text.startswith('data: "a"')
        await bench.shadowing.settle()
        told = bench.shadowing.take().get("m")
        assert (None if told is None else told.outcomes) == outcomes


async def test_a_stream_that_does_not_end_is_left() -> None:
    """Of a shadow's events no more are taken than are compared."""

    async def endless(call: Call) -> AsyncGenerator[CallResult]:
        while True:
            word = "x" * 100_000 if call.aside else "x"
            yield CallResult(output=("values", [word]), timings_ms={"model": 1.0})
            if not call.aside:
                return

    versions = (version(1, streamable=True), version(2, streamable=True))
    shadow = Shadow(number=2, forced=True)
    bench = Bench(now=catalog(served(*versions, default=1, shadow=shadow)))
    bench.models.stream = endless  # type: ignore[method-assign]
    await bench.client.post(
        "/models/m/predict", json=[{"x": 1.0}], headers={"Accept": "text/event-stream"}
    )
    figures = await bench.figures()
    assert figures.outcomes == {"failed": 1}
    assert figures.failure is not None
    assert "longer" in figures.failure.reason


async def test_a_large_answer_is_looked_at_beside_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the default's was: a shadow may answer a thousand times as much."""
    threads: list[bool] = []

    def looked_at(*given: Any) -> Any:
        threads.append(threading.current_thread() is not threading.main_thread())
        return compared(*given)

    async def much(call: Call) -> CallResult:
        return CallResult(output=("columns", ["y"], [np.zeros(100_000)]))

    compared = asker._compared
    monkeypatch.setattr(asker, "_compared", looked_at)
    for shadow, outcome, is_beside in ((same, "equal", False), (much, "different", True)):
        bench = Bench(shadow)
        await bench.ask(1.0)
        assert (await bench.figures()).outcomes == {outcome: 1}
        assert threads.pop() is is_beside


async def test_a_model_without_a_shadow_has_no_offer() -> None:
    """Nothing is kept of its requests."""
    bench = Bench(now=catalog(served(version(1))))
    await bench.ask(1.0)
    assert bench.shadowing.take() == {}
