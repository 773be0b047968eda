"""A model that hangs or kills its process while it is asked past its replica, on a real Ray; and
one whose tags nothing can follow. What else its own code may do is in
`tests/contract/test_model_faults`.

Each test has a model of its own and so a process of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pandas as pd
import pytest

from deployments.model_replica.supervisor import GRACE_S
from tests.support.harm import MODEL, processes_called
from tests.support.impatience import LOAD_RETRY_S
from tests.support.processes import Gateway, poll
from tests.support.registering import client, columns, register

NUMBER = columns(("x", "double"))
TIMEOUT_S = 6.0
# What Serve takes to notice that a process is gone and to have another one, with much to spare.
RESTART_S = 30.0

_log = logging.getLogger(__name__)


def _same(rows: pd.DataFrame, params: Any) -> Any:
    return rows


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
async def caller(impatient_gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=impatient_gateway.url, timeout=90) as calling:
        yield calling


async def until_answered(calling: httpx.AsyncClient, name: str, number: int = 1) -> float:
    """How long it takes until the version answers a good request again."""
    started = time.monotonic()
    pause = asyncio.Event()
    while (await predict(calling, name, 1.0, number)).status_code != 200:
        assert time.monotonic() - started < RESTART_S + LOAD_RETRY_S
        with suppress(TimeoutError):
            await asyncio.wait_for(pause.wait(), 0.1)
    return time.monotonic() - started


async def test_a_hung_predict_does_not_hold_its_version(
    impatient_gateway: Gateway, mlflow_uri: str, caller: httpx.AsyncClient
) -> None:
    """The caller has a 504 at the deadline, the version answers again after the process was given
    up, and the requests of another version in that process are all answered."""
    for _ in range(2):
        register(mlflow_uri, "own hangs", _sleeps, NUMBER, NUMBER)
    client(mlflow_uri).set_registered_model_tag("own hangs", "modelmux.timeout_s", str(TIMEOUT_S))
    impatient_gateway.sync()
    await until_answered(caller, "own hangs", 1)
    await until_answered(caller, "own hangs", 2)
    other = Steady(impatient_gateway, "own hangs", 2)
    async with other.going():
        started = time.monotonic()
        hung = await predict(caller, "own hangs", -1.0)
        assert (hung.status_code, hung.json()["code"]) == (504, "deadline_exceeded")
        assert time.monotonic() - started < TIMEOUT_S + 2
        waited = await until_answered(caller, "own hangs")
        _log.info("the hung version answered again after %.1f s", waited)
        assert waited < GRACE_S + RESTART_S
    assert not other.failed
    assert other.answered > 10


async def test_a_version_that_kills_its_process_is_found_out(
    impatient_gateway: Gateway, mlflow_uri: str, caller: httpx.AsyncClient
) -> None:
    """503 with Retry-After, after a few deaths at once and with no further process killed; another
    version of the model answers every request."""
    name = "own kills"
    register(mlflow_uri, name, _same, NUMBER, NUMBER)
    register(mlflow_uri, name, _exits, NUMBER, NUMBER)
    impatient_gateway.sync()
    await until_answered(caller, name, 1)
    other = Steady(impatient_gateway, name, 1)
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
    impatient_gateway: Gateway, mlflow_uri: str
) -> None:
    """Another model that wants a replica has one within seconds, /models calls the first unservable
    in the same generation of the catalog, and that one is there soon after its tags are mended."""
    misplaced, other = "own misplaced", "own in its place"
    registry = client(mlflow_uri)
    for name in (misplaced, other):
        register(mlflow_uri, name, _same, NUMBER, NUMBER)
    registry.set_registered_model_tag(misplaced, "modelmux.num_gpus", "64")
    try:
        for name in (misplaced, other):
            registry.set_registered_model_tag(name, "modelmux.min_replicas", "1")
            impatient_gateway.sync()
        started = time.monotonic()
        generation = _generation(impatient_gateway)
        _wait_for_process(impatient_gateway, "own-in-its-place")
        _log.info("the other model was there after %.1f s", time.monotonic() - started)
        reason = poll(lambda: impatient_gateway.model(misplaced)["reason"], what="a reason")
        assert reason == "It takes long to start its processes."
        assert impatient_gateway.model(misplaced)["status"] == "unservable"
        # Where its own process took long as well, that is told until the next look.
        poll(lambda: impatient_gateway.model(other)["status"] == "ready", what="the other, ready")
        assert _generation(impatient_gateway) == generation
        registry.delete_registered_model_tag(misplaced, "modelmux.num_gpus")
        impatient_gateway.sync()
        started = time.monotonic()
        _wait_for_process(impatient_gateway, "own-misplaced")
        _log.info("with its tags mended it was there after %.1f s", time.monotonic() - started)
        poll(lambda: not impatient_gateway.model(misplaced)["reason"], what="no reason any more")
        assert impatient_gateway.predict(misplaced, {"x": 1}).json() == [{"x": 1}]
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
