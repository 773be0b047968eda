"""What a model's own code does: it raises, hangs, kills its process, while it answers or loads; and
a model whose tags nothing can follow.

One gateway with short times. Each test has a model of its own and so a process of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pandas as pd
import pytest

from deployments.model_replica.supervisor import GRACE_S
from tests.support.harm import MODEL, processes_called
from tests.support.processes import Gateway, gateway, poll
from tests.support.registering import client, columns, register

NUMBER = columns(("x", "double"))
TIMEOUT_S = 20.0
LOAD_TIMEOUT_S = 6.0
RETRY_S = 20.0
# What Serve takes to notice that a process is gone and to have another one, with much to spare.
RESTART_S = 30.0

_log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def impatient(mlflow_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that waits seconds where others wait minutes."""
    settings = {
        "MODELMUX_LOAD_TIMEOUT_S": str(LOAD_TIMEOUT_S),
        "MODELMUX_LOAD_RETRY_S": str(RETRY_S),
    }
    folder = tmp_path_factory.mktemp("model-faults")
    with gateway(mlflow_uri, folder, environment=settings) as running:
        yield running


def _same(rows: pd.DataFrame, params: Any) -> Any:
    return rows


def _misbehaves(rows: pd.DataFrame, params: Any) -> Any:
    """Whatever Python lets a function do, by the first row's value."""
    import asyncio
    import sys

    class Odd:
        def __len__(self) -> int:
            raise ValueError("no length")

    class Worse(BaseException):
        pass

    def cancelled() -> Any:
        raise asyncio.CancelledError

    def stopped() -> Any:
        raise StopIteration(1)

    def interrupted() -> Any:
        raise KeyboardInterrupt

    def worse() -> Any:
        raise Worse

    def closed() -> Any:
        raise GeneratorExit

    endless: list[Any] = []
    endless.append(endless)
    deeds = [
        lambda: 1 / 0, sys.exit, cancelled, stopped, interrupted, worse, closed,
        lambda: (object() for _ in [1]), lambda: Odd(), lambda: endless, lambda: [object()],
        lambda: ["text"], lambda: [[1.0, 2.0]], dict, lambda: {"y": Odd()},
        lambda: rows,
    ]  # fmt: skip
    return deeds[int(rows["x"].iloc[0])]()


RAISING, UNFIT = range(7), range(7, 15)


def _sleeps(rows: pd.DataFrame, params: Any) -> Any:
    import time

    if rows["x"].iloc[0] < 0:
        time.sleep(100_000)
    return rows


def _exits(rows: pd.DataFrame, params: Any) -> Any:
    import ctypes

    if rows["x"].iloc[0] < 0:
        ctypes.string_at(0)
    return rows


def _load_sleeps() -> None:
    import time

    time.sleep(100_000)


def _load_exits() -> None:
    import os

    os._exit(3)


class Steady:
    """Requests to one version, one after the other; what was answered, and the longest wait."""

    def __init__(self, running: Gateway, name: str, number: int) -> None:
        self._running = running
        self._name = name
        self._number = number
        self.answered = 0
        self.failed: list[str] = []
        self.longest_s = 0.0
        self._news = asyncio.Condition()

    @asynccontextmanager
    async def going(self) -> AsyncIterator[None]:
        """Asks on and on until the block ends; the last request is awaited."""
        stop = asyncio.Event()
        asking = asyncio.create_task(self._ask(stop))
        try:
            yield
        finally:
            stop.set()
            await asking
            _log.info(
                "%s: answered %d, failed %d, longest wait %.1f s",
                self._name, self.answered, len(self.failed), self.longest_s,
            )  # fmt: skip

    async def goes_on(self) -> None:
        """Until some more requests are answered, with no process lost in between."""
        reached = self.answered + 10
        async with asyncio.timeout(RESTART_S), self._news:
            await self._news.wait_for(lambda: self.answered >= reached)

    async def _ask(self, stop: asyncio.Event) -> None:
        async with httpx.AsyncClient(base_url=self._running.url, timeout=90) as calling:
            while not stop.is_set():
                started = time.monotonic()
                response = await predict(calling, self._name, float(self.answered), self._number)
                self.longest_s = max(self.longest_s, time.monotonic() - started)
                if response.status_code == 200 and response.json() == [{"x": self.answered}]:
                    self.answered += 1
                else:
                    self.failed.append(response.text)
                async with self._news:
                    self._news.notify_all()


async def predict(
    calling: httpx.AsyncClient, name: str, x: float, number: int = 1, **headers: str
) -> httpx.Response:
    sent = {"X-Model-Version": str(number)} | {k.replace("_", "-"): v for k, v in headers.items()}
    return await calling.post(f"/models/{name}/predict", json={"x": x}, headers=sent)


@pytest.fixture
async def caller(impatient: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=impatient.url, timeout=90) as calling:
        yield calling


async def until_answered(calling: httpx.AsyncClient, name: str, number: int = 1) -> float:
    """How long it takes until the version answers a good request again."""
    started = time.monotonic()
    pause = asyncio.Event()
    while (await predict(calling, name, 1.0, number)).status_code != 200:
        assert time.monotonic() - started < RESTART_S + RETRY_S
        with suppress(TimeoutError):
            await asyncio.wait_for(pause.wait(), 0.1)
    return time.monotonic() - started


async def test_whatever_a_model_raises_or_answers_is_that_request_s_alone(
    impatient: Gateway, mlflow_uri: str, caller: httpx.AsyncClient
) -> None:
    """Every kind of exception is model_failed and every kind of garbage invalid_model_output (or
    model_failed, where to look at it raises), and a good request right after it is answered."""
    register(mlflow_uri, "misbehaves", _misbehaves, NUMBER, NUMBER)
    impatient.sync()
    good = len(RAISING) + len(UNFIT)
    for deed in (*RAISING, *UNFIT):
        response = await predict(caller, "misbehaves", float(deed))
        expected = {"model_failed"} if deed in RAISING else {"model_failed", "invalid_model_output"}
        assert response.status_code == 500, (deed, response.text)
        assert response.json()["code"] in expected, (deed, response.text)
        assert (await predict(caller, "misbehaves", float(good))).json() == [{"x": good}], deed


async def test_a_hung_predict_does_not_hold_its_version(
    impatient: Gateway, mlflow_uri: str, caller: httpx.AsyncClient
) -> None:
    """The caller has a 504 at the deadline, the version answers again after the process was given
    up, and the requests of another version in that process are all answered."""
    for _ in range(2):
        register(mlflow_uri, "hangs", _sleeps, NUMBER, NUMBER)
    client(mlflow_uri).set_registered_model_tag("hangs", "modelmux.timeout_s", str(TIMEOUT_S))
    impatient.sync()
    await until_answered(caller, "hangs", 1)
    await until_answered(caller, "hangs", 2)
    other = Steady(impatient, "hangs", 2)
    async with other.going():
        started = time.monotonic()
        hung = await predict(caller, "hangs", -1.0)
        assert (hung.status_code, hung.json()["code"]) == (504, "deadline_exceeded")
        assert time.monotonic() - started < TIMEOUT_S + 2
        waited = await until_answered(caller, "hangs")
        _log.info("the hung version answered again after %.1f s", waited)
        assert waited < GRACE_S + RESTART_S
    assert not other.failed
    assert other.answered > 10


async def test_a_hung_load_is_given_up_and_remembered(
    impatient: Gateway, mlflow_uri: str, caller: httpx.AsyncClient
) -> None:
    """503 with Retry-After in bounded time, then at once; another version of the model, loaded or
    not, answers."""
    for _ in range(2):
        register(mlflow_uri, "load hangs", _same, NUMBER, NUMBER)
    register(mlflow_uri, "load hangs", _same, NUMBER, NUMBER, on_load=_load_sleeps)
    impatient.sync()
    await until_answered(caller, "load hangs", 1)
    other = Steady(impatient, "load hangs", 1)
    async with other.going():
        first = await predict(caller, "load hangs", 1.0, 3)
        assert (first.status_code, first.json()["code"]) == (503, "model_unavailable")
        assert int(first.headers["Retry-After"]) >= 1
        for _ in range(10):
            remembered = await predict(caller, "load hangs", 1.0, 3)
            if "loaded" in remembered.json()["detail"]:
                break
        started = time.monotonic()
        remembered = await predict(caller, "load hangs", 1.0, 3)
        assert remembered.status_code == 503
        assert time.monotonic() - started < 1.0
        assert 1 < int(remembered.headers["Retry-After"]) <= RETRY_S
        await until_answered(caller, "load hangs", 2)
    assert not other.failed


@pytest.mark.parametrize("when", ["load", "predict"])
async def test_a_version_that_kills_its_process_is_found_out(
    impatient: Gateway, mlflow_uri: str, caller: httpx.AsyncClient, when: str
) -> None:
    """503 with Retry-After, after a few deaths at once and with no further process killed; another
    version of the model, which lost its process each time, answers every request."""
    name = f"kills in {when}"
    register(mlflow_uri, name, _same, NUMBER, NUMBER)
    kills = None if when == "predict" else _load_exits
    register(mlflow_uri, name, _exits, NUMBER, NUMBER, on_load=kills)
    impatient.sync()
    await until_answered(caller, name, 1)
    other = Steady(impatient, name, 1)
    async with other.going():
        started = time.monotonic()
        while True:
            response = await predict(caller, name, -1.0, 2)
            assert (response.status_code, response.json()["code"]) == (503, "model_unavailable")
            assert int(response.headers["Retry-After"]) >= 1
            if int(response.headers["Retry-After"]) > 3:
                break
            assert time.monotonic() - started < 4 * RESTART_S
        _log.info("%s: found out after %.1f s", name, time.monotonic() - started)
        started = time.monotonic()
        assert (await predict(caller, name, -1.0, 2)).status_code == 503
        assert time.monotonic() - started < 1.0
        await other.goes_on()
    assert not other.failed


def test_a_model_that_cannot_be_placed_holds_up_no_other(
    impatient: Gateway, mlflow_uri: str
) -> None:
    """Another model that wants a replica has one within seconds, /models calls the first unservable
    in the same generation of the catalog, and that one is there soon after its tags are mended."""
    misplaced, other = "misplaced", "in its place"
    registry = client(mlflow_uri)
    for name in (misplaced, other):
        register(mlflow_uri, name, _same, NUMBER, NUMBER)
    registry.set_registered_model_tag(misplaced, "modelmux.num_gpus", "64")
    try:
        for name in (misplaced, other):
            registry.set_registered_model_tag(name, "modelmux.min_replicas", "1")
            impatient.sync()
        started = time.monotonic()
        generation = _generation(impatient)
        _wait_for_process(impatient, "in-its-place")
        _log.info("the other model was there after %.1f s", time.monotonic() - started)
        reason = poll(lambda: impatient.model(misplaced)["reason"], what="a reason")
        assert reason == "It takes long to start its processes."
        assert impatient.model(misplaced)["status"] == "unservable"
        assert impatient.model(other)["status"] == "ready"
        assert _generation(impatient) == generation
        registry.delete_registered_model_tag(misplaced, "modelmux.num_gpus")
        impatient.sync()
        started = time.monotonic()
        _wait_for_process(impatient, misplaced)
        _log.info("with its tags mended it was there after %.1f s", time.monotonic() - started)
        poll(lambda: not impatient.model(misplaced)["reason"], what="no reason any more")
        assert impatient.predict(misplaced, {"x": 1}).json() == [{"x": 1}]
    finally:
        for name in (misplaced, other):
            registry.delete_registered_model(name)


def _wait_for_process(running: Gateway, slug: str) -> None:
    poll(
        lambda: processes_called(running, f"{MODEL}{slug}"),
        timeout_s=RESTART_S,
        what=f"a process of {slug}",
    )


def _generation(running: Gateway) -> int:
    return int(running.client.get("/models").json()["generation"])
