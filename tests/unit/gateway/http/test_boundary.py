"""Nothing leaves as anything but a problem document, whatever is raised, wherever, and when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.batching.batcher import MicroBatcher
from gateway.catalog import Catalog
from gateway.errors import GatewayError, ModelUnavailable, SignatureMismatch
from gateway.http.access_log import AccessJournal
from gateway.http.app import create_app
from gateway.http.boundary import Boundary
from gateway.http.predict.body import HttpLimits
from gateway.http.predict.routes import PredictionRoutes
from gateway.http.problems import MEDIA_TYPE
from gateway.metrics.counters import CALLER_LEFT, Traffic
from gateway.metrics.families import REQUESTS
from gateway.ports import Call, CallResult, RegistryStatus, SyncReport
from gateway.prediction import PredictionService
from tests.support.catalogs import catalog, served, version

DEADLINE_S = 5.0
MODEL = served(version(1, flavor="mlflow.sklearn"))


class Unspeakable(Exception):
    """An error that can't even be told to the log."""

    def __str__(self) -> str:
        raise ZeroDivisionError


def untold() -> GatewayError:
    """An error of ours whose own words can't be put into JSON."""
    difference = {"number": 2**70}
    return SignatureMismatch(
        "No.", model="m", requested_version=1, default_version=2, differences=(difference,)
    )


RAISED: list[Callable[[], BaseException]] = [
    ZeroDivisionError,
    asyncio.CancelledError,  # of something shared that was cancelled
    lambda: ExceptionGroup("many", [ValueError(), KeyError()]),
    lambda: ExceptionGroup("many", [ModelUnavailable("Later."), KeyError()]),
    lambda: BaseExceptionGroup("many", [asyncio.CancelledError(), SystemExit()]),
    RecursionError,
    MemoryError,
    TimeoutError,  # somebody else's than the request's deadline
    SystemExit,
    StopAsyncIteration,
    Unspeakable,
    untold,
]


class Feed:
    """A feed that fails as told."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.registry = RegistryStatus(silent_for_s=1.0)

    @property
    def catalog(self) -> Catalog:
        if self.error is not None:
            raise self.error
        return catalog(MODEL)

    async def synchronize(self) -> SyncReport:
        assert self.catalog
        return SyncReport(generation=1)


class Backend:
    """A model that fails as told, or answers once it is let go."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.rows: list[int] = []
        self.go = asyncio.Event()
        self.go.set()

    async def call(self, call: Call) -> CallResult:
        self.rows.append(call.frame.rows)
        for _ in range(20):  # so that others come meanwhile
            await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        await self.go.wait()
        return CallResult(output=("columns", ["y"], [call.frame.columns[0]]))


class Bench:
    """The application over fakes, with a journal, and both doors to predictions."""

    def __init__(self) -> None:
        self.feed, self.backend, self.traffic = Feed(), Backend(), Traffic()
        self.lines = b""
        self.journal = AccessJournal(self._write, as_json=True)
        service = PredictionService(
            feed=self.feed, submit=MicroBatcher(self.backend).submit, default_timeout_s=DEADLINE_S
        )
        self.app = create_app(
            service=service,
            feed=self.feed,
            limits=HttpLimits(max_body_bytes=1000),
            journal=self.journal,
            traffic=self.traffic,
        )
        self.front = Boundary(_taken(self.app.state.predictions), journal=self.journal)

    def _write(self, lines: bytes) -> bool:
        self.lines += lines
        return True

    def lines_written(self) -> list[Any]:
        """The lines in the log since this was last asked."""
        self.journal.flush()
        lines, self.lines = self.lines, b""
        return [json.loads(line) for line in lines.splitlines()]

    def line(self) -> Any:
        """The one line in the log."""
        (line,) = self.lines_written()
        return line

    def statuses(self) -> list[str]:
        """The statuses that predictions were counted with."""
        return [labels[2] for labels, _ in self.traffic.reading()[REQUESTS.name]]

    async def ask(self, app: ASGIApp, method: str, path: str) -> httpx.Response:
        # An exception that leaves the application fails the test: a server would answer it.
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gw") as client:
            body = {"x": 1.0} if method == "POST" else None
            return await client.request(method, path, json=body)


def _taken(routes: PredictionRoutes) -> ASGIApp:
    async def taken(scope: Scope, receive: Receive, send: Send) -> None:
        assert routes.takes(scope)
        await routes(scope, receive, send)

    return taken


@pytest.fixture
def bench() -> Bench:
    return Bench()


def assert_is_problem(response: httpx.Response) -> None:
    assert response.headers["Content-Type"] == MEDIA_TYPE
    assert response.status_code == response.json()["status"] == 500
    assert len(response.headers.get_list("X-Request-ID")) == 1


@pytest.mark.parametrize("past_fastapi", [True, False], ids=["past FastAPI", "by its route"])
@pytest.mark.parametrize("asked", [1, 3], ids=["alone", "in a batch"])
async def test_whatever_a_backend_raises_is_a_problem_and_noted_as_one(
    bench: Bench, past_fastapi: bool, asked: int
) -> None:
    """Of every kind, by either door, alone or in a batch: the status that is sent is in the line
    and in the numbers, and no caller waits for the deadline to hear of it."""
    app = bench.front if past_fastapi else bench.app
    await bench.ask(app, "POST", "/models/m/predict")  # from then on calls are shared
    bench.lines_written()
    for raised in RAISED:
        bench.backend.error, bench.backend.rows = raised(), []
        async with asyncio.timeout(DEADLINE_S - 1):
            answers = await asyncio.gather(
                *(bench.ask(app, "POST", "/models/m/predict") for _ in range(asked))
            )
        assert (max(bench.backend.rows) > 1) == (asked > 1)
        for response in answers:
            assert_is_problem(response)
        lines = bench.lines_written()
        assert [line["status"] for line in lines] == [each.status_code for each in answers]
        assert {(line["model"], line["version"]) for line in lines} == {("m", 1)}
    assert str(CALLER_LEFT) not in bench.statuses()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/models"), ("GET", "/models/m"), ("GET", "/readyz"), ("GET", "/metrics"),
        ("GET", "/openapi.json"), ("POST", "/registry/sync"), ("GET", "/"), ("GET", "/catalog/m"),
        ("POST", "/models/m/predict"),
    ],
)  # fmt: skip
async def test_whatever_a_route_raises_is_a_problem(bench: Bench, method: str, path: str) -> None:
    """Of every kind, on every route that asks for the catalog."""
    for raised in RAISED:
        bench.feed.error = raised()
        response = await bench.ask(bench.app, method, path)
        assert_is_problem(response)
        (line,) = bench.lines_written()
        assert line["status"] == response.status_code


@pytest.mark.parametrize("raised", RAISED)
async def test_an_error_of_a_middleware_is_a_problem(raised: Callable[[], BaseException]) -> None:
    """Whatever stands inside of the boundary."""

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        raise raised()

    bench = Bench()
    response = await bench.ask(Boundary(middleware), "GET", "/models")
    assert_is_problem(response)


async def test_silence_is_a_problem(bench: Bench) -> None:
    """An application that returns without an answer has failed."""

    async def silent(scope: Scope, receive: Receive, send: Send) -> None: ...

    assert_is_problem(await bench.ask(Boundary(silent), "GET", "/models"))


@pytest.mark.parametrize("raised", [ZeroDivisionError, asyncio.CancelledError])
async def test_an_answer_that_has_begun_is_broken_off(
    raised: Callable[[], BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """No second head follows: the server is told, and so is the log."""
    sent: list[str] = []

    async def half(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise raised()

    async def send(message: Any) -> None:
        sent.append(message["type"])

    with pytest.raises(raised):  # type: ignore[call-overload]
        await Boundary(half)(scope(), silence, send)
    assert sent == ["http.response.start"]
    assert "broke off" in caplog.text


def scope() -> dict[str, Any]:
    headers = [(b"content-type", b"application/json"), (b"x-request-id", b"r1")]
    return {
        "type": "http", "method": "POST", "path": "/models/m/predict", "headers": headers,
        "raw_path": b"/models/m/predict", "path_params": {"name": "m"},
    }  # fmt: skip


async def silence() -> Any:
    await asyncio.Event().wait()


class Connection:
    """The server's side of a request: its body, then its caller's leaving."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.sent: list[Any] = []
        self._has_body = True

    async def receive(self) -> Any:
        if self._has_body:
            self._has_body = False
            return {"type": "http.request", "body": b'{"x": 1}', "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)


@pytest.fixture
async def connection(bench: Bench) -> AsyncIterator[tuple[Connection, asyncio.Task[None]]]:
    """A prediction that waits for its model."""
    made = Connection()
    bench.backend.go.clear()
    task = asyncio.ensure_future(bench.front(scope(), made.receive, made.send))
    await asyncio.sleep(0)
    yield made, task
    assert task.done()


async def test_a_caller_who_left_gets_nothing_and_is_noted_as_left(
    bench: Bench, connection: tuple[Connection, asyncio.Task[None]]
) -> None:
    """No error reaches the server, the line has no status, the numbers have 499."""
    made, task = connection
    made.left.set()
    async with asyncio.timeout(5):
        await task
    assert made.sent == []
    line = bench.line()
    assert (line["status"], line["version"]) == (None, 1)
    assert bench.statuses() == [str(CALLER_LEFT)]


async def test_a_caller_who_left_with_half_a_body_is_noted_as_left(bench: Bench) -> None:
    """Nothing is sent, and no error reaches the server."""

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    made = Connection()
    await bench.front(scope(), receive, made.send)
    assert made.sent == []
    assert (bench.line()["status"], bench.statuses()) == (None, [str(CALLER_LEFT)])


async def test_a_server_that_cancels_for_a_caller_who_left_answers_nothing(
    bench: Bench, connection: tuple[Connection, asyncio.Task[None]]
) -> None:
    """As Ray Serve does, with routes behind it."""
    made, task = connection
    made.left.set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert made.sent == []
    assert bench.line()["status"] is None


async def test_a_server_that_ends_is_told_to_those_who_wait(
    connection: tuple[Connection, asyncio.Task[None]],
) -> None:
    """A task that is cancelled while its caller is still there: 503, and the cancellation goes
    on."""
    made, task = connection
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    head, body = made.sent
    assert head["status"] == 503
    assert json.loads(body["body"])["code"] == "gateway_unavailable"


async def test_a_keyboard_s_interrupt_is_answered_and_goes_on(bench: Bench) -> None:
    """Whoever sits at the terminal ends the process; the caller hears of it."""
    made = Connection()

    async def interrupted(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyboardInterrupt

    coroutine = Boundary(interrupted)(scope(), silence, made.send)
    with pytest.raises(KeyboardInterrupt):
        coroutine.send(None)
    assert made.sent[0]["status"] == 500
