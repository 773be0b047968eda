"""Bounds on a request, seen at the routes: deadlines, rows, bytes, time, and what waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest

from gateway.admission import Admission, AdmissionLimits
from gateway.contract import TYPED, Contract, Read, Request
from gateway.http.app import create_app
from gateway.http.predict.body import HttpLimits
from gateway.http.predict.endpoint import PredictEndpoint
from gateway.parsing.pool import Parsing
from gateway.ports import Call, CallResult
from gateway.prediction import PredictionService
from tests.support.catalogs import catalog, served, version
from tests.support.static_feed import StaticFeed

CATALOG = catalog(
    served(version(1)),
    served(version(1), name="patient", options={"timeout_s": 3000.0}),
    served(version(1), name="other"),
)


class HeldModel:
    """A model that answers once it is let go."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.go = asyncio.Event()
        self.go.set()
        self.asked = asyncio.Condition()

    async def call(self, call: Call) -> CallResult:
        async with self.asked:
            self.calls.append(call)
            self.asked.notify_all()
        await self.go.wait()
        return CallResult(output=("columns", ["y"], [call.frame.columns[0]]))


class Bench:
    """The app over a held model, with tight bounds, and a client of it."""

    def __init__(self) -> None:
        self.model = HeldModel()
        self.admission = Admission(AdmissionLimits(model_requests=2, body_bytes=2_000))
        service = PredictionService(
            feed=StaticFeed(CATALOG),
            submit=self.model.call,
            default_timeout_s=5.0,
            max_timeout_s=100.0,
            max_rows=3,
            admission=self.admission,
        )
        limits = HttpLimits(max_body_bytes=1_000, body_timeout_s=1.0)
        app = create_app(service=service, feed=StaticFeed(CATALOG), limits=limits)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://gw")

    async def predict(self, name: str = "m", body: Any = None, **headers: str) -> httpx.Response:
        """POST a record, or `body`; keyword arguments are headers."""
        sent = {key.replace("_", "-"): value for key, value in headers.items()}
        body = {"x": 1.0} if body is None else body
        return await self.client.post(f"/models/{name}/predict", json=body, headers=sent)

    async def waiting(self, count: int) -> list[asyncio.Task[httpx.Response]]:
        """So many requests that the model has been asked and does not answer yet."""
        self.model.go.clear()
        tasks = [asyncio.create_task(self.predict()) for _ in range(count)]
        async with asyncio.timeout(5), self.model.asked:
            await self.model.asked.wait_for(lambda: len(self.model.calls) >= count)
        return tasks


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    async with made.client:
        yield made


@pytest.mark.parametrize(
    ("model", "header", "timeout_s", "patience_s"),
    [
        ("m", None, 5.0, 5.0),
        ("m", "2.5", 2.5, 5.0),
        ("m", "50", 5.0, 5.0),
        ("patient", None, 100.0, 100.0),
        ("patient", "99", 99.0, 100.0),
    ],
)
async def test_a_caller_lowers_a_deadline_and_never_raises_it(
    bench: Bench, model: str, header: str | None, timeout_s: float, patience_s: float
) -> None:
    """The least of the header, the model's deadline and the maximum holds; the header doesn't
    change when a model counts as hung."""
    headers = {} if header is None else {"X_Request_Timeout": header}
    assert (await bench.predict(model, **headers)).status_code == 200
    (call,) = bench.model.calls
    assert timeout_s - 1.0 < call.deadline.left_s() <= timeout_s
    assert call.patience_s == patience_s


async def test_past_the_caller_s_deadline_the_answer_is_504(bench: Bench) -> None:
    """A model that takes longer than the header allows: deadline_exceeded, in the envelope."""
    bench.model.go.clear()
    response = await bench.predict(X_Request_Timeout="1")
    assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")
    assert len(bench.model.calls) == 1, "the model was asked, and is what took too long"


class EndlessParsing(Parsing):
    """Parses large bodies for ever."""

    began = False

    async def parse(
        self, contract: Contract, body: bytes, max_rows: int, read: Read = TYPED.read
    ) -> Request:
        self.began = True
        await asyncio.Event().wait()
        raise AssertionError


async def test_the_deadline_holds_while_a_body_is_parsed() -> None:
    """504 past it, and nothing is held any more."""
    admission, parsing = Admission(), EndlessParsing()
    service = PredictionService(
        feed=StaticFeed(CATALOG),
        submit=HeldModel().call,
        default_timeout_s=1.0,  # enough to come as far as that on a busy machine
        admission=admission,
        parsing=parsing,
    )
    app = create_app(
        service=service, feed=StaticFeed(CATALOG), limits=HttpLimits(max_body_bytes=1_000_000)
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://gw"
    ) as client:
        response = await client.post("/models/m/predict", json=[{"x": 1.0}] * 70_000)
    assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")
    assert parsing.began
    assert admission.body_bytes == 0


async def test_a_large_answer_goes_in_pieces_and_is_held_until_it_is_gone() -> None:
    """Each piece waits until the one before it is taken; meanwhile the answer's bytes count, and
    its request is inside."""
    admission = Admission()
    service = PredictionService(
        feed=StaticFeed(CATALOG),
        submit=HeldModel().call,
        default_timeout_s=60.0,
        admission=admission,
    )
    endpoint = PredictEndpoint(service, limits=HttpLimits(max_body_bytes=10_000_000), access=None)
    body = orjson.dumps([{"x": 0.1}] * 60_000)
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])
    sent: list[bytes] = []

    async def receive() -> Any:
        for message in messages:
            return message
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        assert admission.loads["m"].requests == 1
        assert admission.rows == 0
        if message["type"] == "http.response.body":
            sent.append(message["body"])
            assert admission.body_bytes >= sum(map(len, sent))

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "path_params": {"name": "m"}, "headers": headers}
    await endpoint(scope, receive, send)
    assert len(orjson.loads(b"".join(sent))) == 60_000
    assert len(sent) > 1
    assert max(map(len, sent)) <= 256 * 1024
    assert (admission.body_bytes, admission.loads) == (0, {})


async def test_a_bad_deadline_is_refused(bench: Bench) -> None:
    """400 invalid_header, and the model isn't asked."""
    response = await bench.predict(X_Request_Timeout="soon")
    assert (response.status_code, response.json()["code"]) == (400, "invalid_header")
    assert not bench.model.calls


async def test_more_rows_than_the_limit_are_refused(bench: Bench) -> None:
    """Three rows pass, four are 413, and the model isn't asked."""
    assert (await bench.predict(body=[{"x": 1.0}] * 3)).status_code == 200
    response = await bench.predict(body=[{"x": 1.0}] * 4)
    assert (response.status_code, response.json()["code"]) == (413, "payload_too_large")
    assert len(bench.model.calls) == 1


async def test_a_full_model_refuses_at_once_and_another_does_not(bench: Bench) -> None:
    """With two inside the third is 429 with Retry-After while they still wait; once they are
    answered there is room again."""
    inside = await bench.waiting(2)
    response = await bench.predict()
    assert (response.status_code, response.json()["code"]) == (429, "overloaded")
    assert response.headers["Retry-After"] == "1"
    assert response.json()["model"] == "m"
    bench.model.go.set()
    assert (await bench.predict("other")).status_code == 200
    assert [(await task).status_code for task in inside] == [200, 200]
    assert (await bench.predict()).status_code == 200


async def test_a_full_model_s_body_is_not_read(bench: Bench) -> None:
    """The refusal comes before the first piece of the body is asked for."""
    inside = await bench.waiting(2)
    asked = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal asked
        asked = True
        yield b"{}"

    headers = {"Content-Type": "application/json"}
    response = await bench.client.post("/models/m/predict", content=body(), headers=headers)
    assert (response.status_code, asked) == (429, False)
    bench.model.go.set()
    await asyncio.gather(*inside)


async def test_a_body_that_does_not_come_is_not_waited_for(bench: Bench) -> None:
    """408 in the envelope after the time for bodies, however the pieces trickle; the connection
    is closed, since the rest may still come."""

    async def trickle() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    headers = {"Content-Type": "application/json"}
    response = await bench.client.post("/models/m/predict", content=trickle(), headers=headers)
    assert (response.status_code, response.json()["code"]) == (408, "request_timeout")
    assert response.headers["Connection"] == "close"
    assert bench.admission.body_bytes == 0


async def test_a_body_without_a_length_is_refused_at_the_limit(bench: Bench) -> None:
    """Of an endless body no more is read than the limit and one piece."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 100
            yield b" " * 100

    headers = {"Content-Type": "application/json"}
    response = await bench.client.post("/models/m/predict", content=endless(), headers=headers)
    assert (response.status_code, response.json()["code"]) == (413, "payload_too_large")
    assert sent <= 1_100


async def test_the_deadline_header_is_documented(bench: Bench) -> None:
    """Each predict operation refers to the parameter of the shared components."""
    document = (await bench.client.get("/openapi.json")).json()
    referred = {"$ref": "#/components/parameters/RequestTimeout"}
    assert referred in document["paths"]["/models/m/predict"]["post"]["parameters"]
    assert document["components"]["parameters"]["RequestTimeout"]["name"] == "X-Request-Timeout"
