"""What a model's own code does, as a caller of the in-process gateway sees it: it raises, answers
garbage, hangs or kills its process while it is loaded.

Each model has a process of its own for each version. A hang and a kill in a call past the replica
are in `tests/integration/test_model_faults`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from gateway.http.app import create_app
from gateway.http.predict.body import HttpLimits
from gateway.prediction import PredictionService
from tests.contract.in_process import InProcessBackend
from tests.support.catalogs import catalog, served, signature, version
from tests.support.static_feed import StaticFeed
from tests.support.supervised import save_code

LOAD_TIMEOUT_S = 3.0
SAME = "def predict(rows): return rows\n"
MISBEHAVES = """
import asyncio, sys

class Odd:
    def __len__(self):
        raise ValueError("no length")

class Worse(BaseException):
    pass

def raises(error):
    def deed(rows):
        raise error
    return deed

endless = []
endless.append(endless)
DEEDS = [
    lambda rows: 1 / 0, lambda rows: sys.exit(), raises(asyncio.CancelledError()),
    raises(StopIteration(1)), raises(KeyboardInterrupt()), raises(Worse()),
    raises(GeneratorExit()),
    lambda rows: (object() for _ in [1]), lambda rows: Odd(), lambda rows: endless,
    lambda rows: [object()], lambda rows: ["text"], lambda rows: [[1.0, 2.0]], lambda rows: {},
    lambda rows: {"y": Odd()},
    lambda rows: rows,
]

def predict(rows):
    return DEEDS[int(rows["x"].iloc[0])](rows)
"""
RAISING, UNFIT = range(7), range(7, 15)
CODE = {
    "misbehaves": (SAME, MISBEHAVES),
    "hangs": (SAME, "import time\ntime.sleep(3600)\n" + SAME),
    "kills": (SAME, "import os\nos._exit(3)\n" + SAME),
}


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessBackend]:
    folder = tmp_path_factory.mktemp("model-faults")
    for name, versions in CODE.items():
        for number, code in enumerate(versions, start=1):
            save_code(folder, f"{name}{number}", code)
    made = InProcessBackend("sqlite:///nothing.db", folder, load_timeout_s=LOAD_TIMEOUT_S)
    yield made
    made.close()


@pytest.fixture
async def caller(backend: InProcessBackend) -> AsyncIterator[httpx.AsyncClient]:
    number = signature(("x", "double"), outputs=(("x", "double"),))
    models = [
        served(
            *(version(n, number, fingerprint=f"{name}{n}") for n in (1, 2)), default=1, name=name
        )
        for name in CODE
    ]
    feed = StaticFeed(catalog(*models))
    service = PredictionService(feed=feed, submit=backend.call, default_timeout_s=60.0)
    app = create_app(service=service, feed=feed, limits=HttpLimits(max_body_bytes=1 << 20))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://in-process") as made:
        yield made


async def predict(
    caller: httpx.AsyncClient, name: str, x: float, number: int = 2
) -> httpx.Response:
    headers = {"X-Model-Version": str(number)}
    return await caller.post(f"/models/{name}/predict", json={"x": x}, headers=headers)


async def test_whatever_a_model_raises_or_answers_is_that_request_s_alone(
    caller: httpx.AsyncClient,
) -> None:
    """Every kind of exception is model_failed and every kind of garbage invalid_model_output (or
    model_failed, where to look at it raises), and a good request right after it is answered."""
    good = len(RAISING) + len(UNFIT)
    for deed in (*RAISING, *UNFIT):
        response = await predict(caller, "misbehaves", float(deed))
        expected = {"model_failed"} if deed in RAISING else {"model_failed", "invalid_model_output"}
        assert response.status_code == 500, (deed, response.text)
        assert response.json()["code"] in expected, (deed, response.text)
        assert (await predict(caller, "misbehaves", float(good))).json() == [{"x": good}], deed


@pytest.mark.parametrize("name", ["hangs", "kills"])
async def test_a_load_that_hangs_or_kills_its_process_is_remembered(
    caller: httpx.AsyncClient, name: str
) -> None:
    """503 with Retry-After in bounded time, then at once; the model's other version is answered all
    the while."""
    assert (await predict(caller, name, 1.0, 1)).json() == [{"x": 1.0}]
    began = time.monotonic()
    loading = asyncio.create_task(predict(caller, name, 1.0))
    while not loading.done():
        assert (await predict(caller, name, 2.0, 1)).json() == [{"x": 2.0}]
        await asyncio.sleep(0.05)
    first = await loading
    assert (first.status_code, first.json()["code"]) == (503, "model_unavailable"), first.text
    assert int(first.headers["Retry-After"]) >= 1
    assert time.monotonic() - began < LOAD_TIMEOUT_S + 10.0
    began = time.monotonic()
    again = await predict(caller, name, 1.0)
    assert (again.status_code, again.json()["code"]) == (503, "model_unavailable")
    assert int(again.headers["Retry-After"]) > 3
    assert time.monotonic() - began < 1.0
