"""The server's protocol over a transport in memory: what is answered directly, and that nobody can
tell it from what isn't."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from gateway.admission import Admission, AdmissionLimits, Visit
from gateway.batching.batcher import MicroBatcher
from gateway.canary import Canary, CanaryRule, Trials
from gateway.capture.journal import CaptureJournal
from gateway.capture.kept import Kept
from gateway.catalog import ModelOptions, Shadow
from gateway.errors import InvalidInput, ModelFailed, ModelUnavailable, Violation
from gateway.http.access_control import Access
from gateway.http.access_log import AccessJournal
from gateway.http.app import create_app
from gateway.http.boundary import Boundary
from gateway.http.predict.body import HttpLimits
from gateway.http.predict.direct import DirectPredictions
from gateway.http.server.protocol import GatewayProtocol
from gateway.metrics.counters import Traffic
from gateway.metrics.families import REQUEST_DURATION, REQUEST_ROWS, REQUESTS
from gateway.ports import Call, CallResult
from gateway.prediction import PredictionService
from gateway.security.api_keys import entry_of, parse_keys
from gateway.shadow.shadowing import Shadowing
from gateway.small_predictions import Begun
from tests.support.catalogs import catalog, served, signature, version
from tests.support.static_feed import StaticFeed
from tests.support.supervised import until as until_later

INPUTS = (("x", "double"), ("n", "long"), ("t", "string", False))
SIGNATURE = signature(*INPUTS, outputs=[("x", "double"), ("t", "string")])
GOOD = b'{"x": 1.5, "n": 2, "t": "a"}'
GOOD_TENSORS = b"""{"inputs": [
    {"name": "x", "shape": [1], "datatype": "FP64", "data": [1.5]},
    {"name": "n", "shape": [1], "datatype": "INT64", "data": [2]},
    {"name": "t", "shape": [1], "datatype": "BYTES", "data": ["a"]}
]}"""


class Route(NamedTuple):
    """Where a protocol is asked, and a body that it takes."""

    path: str
    good: bytes


ROUTES = {
    "modelmux": Route("/models/a%20b/predict", GOOD),
    "mlflow": Route("/models/a%20b/invocations", b'{"dataframe_records": [%b]}' % GOOD),
    "inference_v2": Route("/v2/models/a%20b/infer", GOOD_TENSORS),
}
by_each_protocol = pytest.mark.parametrize("protocol", ROUTES)
SECRET = "mm_0123456789abcdef0123456789abcdef"  # pragma: allowlist secret


async def until(is_so: Callable[[], bool]) -> None:
    """Mostly it is a matter of some turns of the event loop."""
    for _ in range(100):
        if is_so():
            return
        await asyncio.sleep(0)
    await until_later(is_so)


class Keys:
    """A source of one keyring."""

    def __init__(self, *entries: str) -> None:
        self.keyring = parse_keys("\n".join(entries))


class Doubling:
    """A backend that answers x doubled, and texts of some length; or fails, or waits, as told."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.error: BaseException | None = None
        self.text = "t"
        self.go = asyncio.Event()
        self.go.set()

    async def call(self, call: Call) -> CallResult:
        self.calls.append(call)
        await self.go.wait()
        if self.error is not None:
            raise self.error
        x = np.asarray(call.frame.columns[0])
        texts = [self.text] * call.frame.rows
        return CallResult(output=("columns", ["x", "t"], [2 * x, texts]), timings_ms={"model": 1.0})


class KeptInMemory:
    """A journal of what is captured."""

    def __init__(self) -> None:
        self.kept: list[Kept] = []

    def note(self, kept: Kept) -> None:
        self.kept.append(kept)


class Transport(asyncio.Transport):
    """The caller's end, as the protocol sees it."""

    def __init__(self) -> None:
        self.written = b""
        self.writes = 0
        self.is_closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 4711) if name == "peername" else default

    def write(self, data: Any) -> None:
        self.written += bytes(data)
        self.writes += 1

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def resume_reading(self) -> None: ...

    def pause_reading(self) -> None: ...


class Server:
    """A gateway's HTTP server without its socket. The model's version is warm."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *,
        access: Access | None = None,
        limits: AdmissionLimits | None = None,
        max_body_bytes: int = 1_000_000,
        has_shadow: bool = False,
        canary: CanaryRule | None = None,
        captured_percent: float = 0.0,
    ) -> None:
        self.backend = Doubling()
        self.captured = KeptInMemory()
        self.shadowing = Shadowing(self.backend)
        self.trials = Trials()
        self.traffic = Traffic()
        self.admission = Admission(limits)
        self.lines: list[bytes] = []
        self.journal = AccessJournal(self._keep, as_json=True)
        versions = [version(number, SIGNATURE, flavor="mlflow.sklearn") for number in (1, 2)]
        shadow = Shadow(number=2) if has_shadow else None
        runs = canary and Canary(rule=canary, version=2, state="running", trial="the trial")
        options = ModelOptions(capture=captured_percent)
        model = served(
            *versions, default=1, name="a b", shadow=shadow, canary=runs, options=options
        )
        self.catalog = catalog(model)
        self.feed = StaticFeed(self.catalog)
        batcher = MicroBatcher(self.backend)
        self.service = PredictionService(
            feed=self.feed,
            submit=batcher.submit,
            queue=batcher,
            default_timeout_s=60.0,
            max_rows=10,
            admission=self.admission,
            shadowing=self.shadowing,
            trials=self.trials,
        )
        app = create_app(
            service=self.service,
            feed=self.feed,
            limits=HttpLimits(max_body_bytes=max_body_bytes),
            access=access,
            traffic=self.traffic,
            journal=self.journal,
            captured=cast(CaptureJournal, self.captured),
        )
        assert self.service.small is not None
        self.direct = DirectPredictions(
            self.service,
            self.service.small,
            app.state.predictions,
            access=access,
            journal=self.journal,
            around=lambda inner: Boundary(inner, journal=self.journal),
        )
        self.patching = monkeypatch
        self.state = ServerState()
        self.state.default_headers = [(b"date", b"today"), (b"server", b"uvicorn")]
        self.config = Config(app, log_config=None, lifespan="off")
        self.config.load()

    def _keep(self, lines: bytes) -> bool:
        self.lines += lines.splitlines()
        return True

    async def warm(self) -> Server:
        """Once the version has answered."""
        caller = self.caller()
        caller.ask(b'{"x": 1.0, "n": 2}')
        assert (await caller.answer())[0] == 200
        self.backend.calls.clear()
        self.journal.flush()
        self.lines.clear()
        self.patching.setattr(GatewayProtocol, "direct", self.direct)
        return self

    def caller(self) -> Caller:
        return Caller(self)

    def entry(self) -> dict[str, Any]:
        """The last line of the access log."""
        self.journal.flush()
        line: dict[str, Any] = json.loads(self.lines[-1])
        return line

    def counted(self) -> Counter[tuple[str, ...]]:
        """Requests, rows and times by their labels."""
        reading: dict[str, list[tuple[Any, Any]]] = dict(self.traffic.reading())
        found = Counter(dict(reading[REQUESTS.name]))
        found.update({("rows", *labels): rows for labels, rows in reading[REQUEST_ROWS.name]})
        times = reading[REQUEST_DURATION.name]
        found.update({("times", *labels): sum(counts) for labels, (counts, _) in times})
        return found

    @property
    def inside(self) -> tuple[int, int, int]:
        return len(self.admission.loads), self.admission.rows, self.admission.body_bytes


class Caller:
    """A connection, and what came over it."""

    def __init__(self, server: Server) -> None:
        self.transport = Transport()
        self.server = server
        self.protocol = GatewayProtocol(server.config, server.state, {})
        self.protocol.connection_made(self.transport)

    def send(self, data: bytes) -> None:
        self.protocol.data_received(data)

    def ask(self, body: bytes, *lines: str, path: str = "/models/a%20b/predict") -> None:
        self.send(request(body, *lines, path=path))

    def ask_by(self, protocol: str, *lines: str) -> None:
        """Send what the protocol takes."""
        route = ROUTES[protocol]
        self.ask(route.good, *lines, path=route.path)

    def hang_up(self) -> None:
        self.protocol.connection_lost(None)

    @property
    def answered(self) -> int:
        return len(self.answers)

    @property
    def answers(self) -> list[tuple[int, dict[str, str], bytes]]:
        found, rest = [], self.transport.written
        while b"\r\n\r\n" in rest:
            head, rest = rest.split(b"\r\n\r\n", 1)
            first, *lines = head.decode("latin-1").split("\r\n")
            split = (line.split(": ", 1) for line in lines)
            headers = {name.lower(): value for name, value in split}
            length = int(headers.get("content-length", len(rest)))
            if len(rest) < length:
                break
            found.append((int(first.split()[1]), headers, rest[:length]))
            rest = rest[length:]
        return found

    async def answer(self, number: int = 1) -> tuple[int, dict[str, str], bytes]:
        await until(lambda: self.answered >= number)
        return self.answers[number - 1]


def request(body: bytes, *lines: str, path: str = "/models/a%20b/predict") -> bytes:
    head = [
        f"POST {path} HTTP/1.1",
        "Host: gateway",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *lines,
    ]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def is_direct(caller: Caller) -> bool:
    """Whether what is on its way has no task of its own."""
    return not caller.server.state.tasks


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return await Server(monkeypatch).warm()


async def test_small_predictions_have_no_task_of_their_own(server: Server) -> None:
    """One write has the whole answer; the call is counted, has its line, and nothing stays
    inside."""
    caller = server.caller()
    caller.ask(GOOD, "X-Request-ID: mine", "Accept: */*", "User-Agent: one")
    assert is_direct(caller)
    status, headers, body = await caller.answer()
    assert (status, json.loads(body)) == (200, [{"x": 3.0, "t": "t"}])
    assert caller.transport.writes == 1
    assert headers["x-request-id"] == "mine"
    assert (headers["date"], headers["server"], headers["x-model-version"]) == (
        "today", "uvicorn", "1",
    )  # fmt: skip
    assert re.fullmatch(r"predict;dur=\S+, model;dur=1.00, parse;dur=\S+", headers["server-timing"].rsplit(", ", 1)[0])  # fmt: skip  # noqa: E501
    line = server.entry()
    assert (line["path"], line["status"], line["model"], line["version"], line["rows"]) == (
        "/models/a%20b/predict", 200, "a b", 1, 1,
    )  # fmt: skip
    assert server.inside == (0, 0, 0)


async def test_each_protocol_is_answered_directly(server: Server) -> None:
    """In turn over one connection, with its own body, and counted by its own label."""
    caller = server.caller()
    told = {
        "modelmux": [{"x": 3.0, "t": "t"}],
        "mlflow": {"predictions": [{"x": 3.0, "t": "t"}]},
    }
    for number, protocol in enumerate([*ROUTES, *ROUTES], 1):
        before = server.counted()
        caller.ask_by(protocol)
        assert is_direct(caller)
        status, headers, body = await caller.answer(number)
        assert (status, headers["x-model-version"]) == (200, "1")
        if protocol in told:
            assert json.loads(body) == told[protocol]
        else:
            assert [each["data"] for each in json.loads(body)["outputs"]] == [[3.0], ["t"]]
        counted = server.counted() - before
        assert (counted["a b", "1", "200", protocol], counted["rows", "a b", "1", protocol]) == (
            1,
            1,
        )
    assert caller.transport.writes == 2 * len(ROUTES)


class Bodies:
    """By chance, good ones and bad ones, in the forms of each protocol."""

    def __init__(self, seed: int) -> None:
        self._drawn = random.Random(seed)
        self._values: list[Any] = [
            0, 1.5, -3, 2**70, True, None, "a", "", "ü", [], {}, float("inf"), "1",
        ]  # fmt: skip

    def of(self, protocol: str) -> bytes:
        """One of them; now and then it breaks off."""
        body: Any = {"mlflow": self._mlflow, "inference_v2": self._tensors}.get(
            protocol, self._typed
        )()
        text = json.dumps(body).encode()
        return text if self._drawn.random() < 0.9 else text[: len(text) // 2]

    def _is(self, chance: float) -> bool:
        return self._drawn.random() < chance

    def _row(self) -> dict[str, Any]:
        names = self._drawn.sample(["x", "n", "t", "other"], self._drawn.randint(0, 4))
        good = {"x": self._drawn.random(), "n": self._drawn.randint(0, 9), "t": "text"}
        if self._is(0.6):
            return good
        return {**good, **{name: self._drawn.choice(self._values) for name in names}}

    def _rows(self) -> list[dict[str, Any]]:
        return [self._row() for _ in range(self._drawn.choice([0, 1, 1, 2, 11]))]

    def _columns(self) -> dict[str, list[Any]]:
        rows, names = self._rows(), self._drawn.sample(["x", "n", "t"], 3)
        if self._is(0.1):
            names.pop()
        return {name: [row.get(name) for row in rows] for name in names}

    def _typed(self) -> Any:
        if self._is(0.4):
            return self._row()
        return self._rows() if self._is(0.7) else {"inputs": self._rows(), "params": {"p": 1}}

    def _mlflow(self) -> Any:
        columns = self._columns()
        data = list(zip(*columns.values(), strict=True))
        forms: dict[str, Any] = {
            "dataframe_records": self._rows(),
            "dataframe_split": {"columns": list(columns), "data": data},
            "instances": self._rows(),
            "inputs": self._columns(),
            "messages": "a",
        }
        chosen = self._drawn.choices(list(forms), [4, 4, 2, 2, 1], k=2 if self._is(0.05) else 1)
        params = {"params": self._drawn.choice([{}, {"p": 1}, 3])} if self._is(0.2) else {}
        return {**{name: forms[name] for name in chosen}, **params}

    def _tensors(self) -> Any:
        datatypes = {"x": "FP64", "n": "INT64", "t": "BYTES"}
        inputs = [
            {
                "name": name,
                "shape": [len(data) + self._is(0.05), *([1] if self._is(0.3) else [])],
                "datatype": "FP32" if self._is(0.05) else datatypes[name],
                "data": data,
            }
            for name, data in self._columns().items()
        ]  # fmt: skip
        more: dict[str, list[Any]] = {
            "id": ["7", 7],
            "parameters": [{}, {"content_type": "pd"}, {"binary_data_output": True}, {"p": 1}],
            "outputs": [
                [{"name": "t"}], [{"name": "no"}], [],
                [{"name": "x", "parameters": {"binary_data": True}}, {"name": "t"}],
            ],
        }  # fmt: skip
        asked = {name: self._drawn.choice(each) for name, each in more.items() if self._is(0.15)}
        return {"inputs": inputs, **asked}


@pytest.mark.parametrize(
    ("protocol", "path"),
    [
        *((protocol, route.path) for protocol, route in ROUTES.items()),
        ("mlflow", "/models/a%20b/versions/2/invocations"),
        ("inference_v2", "/v2/models/a%20b/versions/2/infer/"),
    ],
)
async def test_nobody_can_tell_which_way_an_answer_came(
    server: Server, monkeypatch: pytest.MonkeyPatch, protocol: str, path: str
) -> None:
    """Over hundreds of bodies, good ones and bad ones, status, headers and body are the same, what
    is counted, and what the access log says."""
    chance, directly = Bodies(7), 0
    for number in range(200):
        body, seen = chance.of(protocol), []
        for direct in (server.direct, None):
            monkeypatch.setattr(GatewayProtocol, "direct", direct)
            caller, before = server.caller(), server.counted()
            caller.ask(body, f"X-Request-ID: {number}", path=path)
            directly += is_direct(caller)
            status, headers, answer = await caller.answer()
            await until(lambda: not server.state.tasks)
            assert headers.pop("server-timing", "").startswith("predict;") == (status == 200)
            counted, entry = server.counted() - before, server.entry()
            for varying in ("timestamp", "ms"):
                del entry[varying]
            assert sum(counted[labels] for labels in counted if labels[-1] == protocol) >= 1
            seen.append((status, headers, answer, counted, entry))
            assert server.inside == (0, 0, 0)
        assert seen[0] == seen[1], body
    assert directly > 40


@pytest.mark.parametrize(
    "line",
    [
        "X-Model-Version: 1", "serve_multiplexed_model_id: 1", "X-Request-Timeout: 5",
        "Accept: text/csv", "Origin: https://page", "Content-Encoding: identity",
        "Connection: close", "Upgrade: websocket",
    ],
)  # fmt: skip
@by_each_protocol
async def test_what_a_header_decides_is_left_to_the_endpoint(
    server: Server, line: str, protocol: str
) -> None:
    """Whoever asks for a version, a deadline, another form or the connection's end."""
    caller = server.caller()
    caller.ask_by(protocol, line)
    assert not is_direct(caller)
    assert (await caller.answer())[0] == 200


@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "text/csv"])
@by_each_protocol
async def test_which_type_of_two_counts_is_left_to_the_endpoint(
    server: Server, media_type: str, protocol: str
) -> None:
    """Protocols take the first one or the last one."""
    asked = request(ROUTES[protocol].good, path=ROUTES[protocol].path)
    other = b"\r\nContent-Type: %b" % media_type.encode()
    for place in (b"\r\nContent-Type", b"\r\nContent-Length"):
        caller = server.caller()
        caller.send(asked.replace(place, other + place, 1))
        assert not is_direct(caller)
        await caller.answer()
        await until(lambda: not server.state.tasks)


async def test_binary_tensors_are_left_to_the_endpoint(server: Server) -> None:
    """A header says where they begin."""
    caller = server.caller()
    caller.ask_by("inference_v2", f"Inference-Header-Content-Length: {len(GOOD_TENSORS)}")
    assert not is_direct(caller)
    assert (await caller.answer())[0] == 200


@pytest.mark.parametrize("path", ["/models/other/predict", "/models/a%20b/predict?x=1", "/models"])
async def test_other_paths_are_left_to_the_application(server: Server, path: str) -> None:
    """Models that nobody knows, and whatever isn't a bare path of the typed route."""
    caller = server.caller()
    caller.ask(GOOD, path=path)
    assert not is_direct(caller)
    await caller.answer()


async def test_a_new_catalog_counts_at_once(server: Server) -> None:
    """What a path meant is forgotten with the catalog that it was resolved in."""
    caller = server.caller()
    caller.ask(GOOD)
    await caller.answer()
    server.feed.catalog = catalog(generation=2)
    caller.ask(GOOD)
    assert (await caller.answer(2))[0] == 404


async def test_a_body_that_comes_in_pieces_is_waited_for_by_the_endpoint(server: Server) -> None:
    """Its time is limited there; however it is cut, the answer is the same."""
    whole = request(GOOD)
    for cut in range(1, len(whole)):
        caller = server.caller()
        caller.send(whole[:cut])
        caller.send(whole[cut:])
        status, _, body = await caller.answer()
        assert (status, json.loads(body)) == (200, [{"x": 3.0, "t": "t"}]), cut


async def test_pipelined_requests_are_answered_in_their_order(server: Server) -> None:
    """Direct ones, others, and again direct ones, in one piece."""
    caller = server.caller()
    server.backend.go.clear()
    others = b"GET /models/none HTTP/1.1\r\nHost: gateway\r\n\r\n"
    pieces = [request(b'{"x": %d, "n": 1}' % x) for x in range(3)]
    caller.send(pieces[0] + others + pieces[1] + pieces[2])
    server.backend.go.set()
    await caller.answer(4)
    assert [status for status, _, _ in caller.answers] == [200, 404, 200, 200]
    values = [json.loads(body)[0]["x"] for status, _, body in caller.answers if status == 200]
    assert values == [0.0, 2.0, 4.0]


async def test_callers_share_calls(server: Server) -> None:
    """Who comes while a call is on its way travels with the others in the next one, and has the
    answer to its own rows."""
    server.backend.go.clear()
    callers = [server.caller() for _ in range(20)]
    for number, caller in enumerate(callers):
        caller.ask(b'{"x": %d, "n": 1}' % number)
    await until(lambda: len(server.backend.calls) == 1)
    server.backend.go.set()
    for number, caller in enumerate(callers):
        assert json.loads((await caller.answer())[2])[0]["x"] == 2 * number
    assert len(server.backend.calls) < 5


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ModelFailed("It failed."), 500, "model_failed"),
        (ModelUnavailable("Away.", retry_after_s=3.0), 503, "model_unavailable"),
        (InvalidInput((Violation(pointer="/0/x", message="No."),)), 422, "invalid_input"),
        (ZeroDivisionError(), 500, "internal_error"),
        (SystemExit(), 500, "internal_error"),
    ],
)
@by_each_protocol
async def test_whatever_a_call_ends_with_is_a_problem(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    code: str,
    protocol: str,
) -> None:
    """The same as from the endpoint, with its line; and the connection goes on."""
    if protocol == "mlflow" and code in ("model_failed", "invalid_input"):
        status = 400
    media_type = "application/problem+json"
    if protocol == "inference_v2" and code != "internal_error":
        media_type = "application/json"
    problems = []
    for direct in (server.direct, None):
        monkeypatch.setattr(GatewayProtocol, "direct", direct)
        caller = server.caller()
        server.backend.error = error
        caller.ask_by(protocol, "X-Request-ID: mine")
        assert is_direct(caller) is (direct is not None)
        told, headers, body = await caller.answer()
        assert (told, json.loads(body)["code"]) == (status, code)
        assert headers["content-type"] == media_type
        assert (headers.get("retry-after") == "3") == (status == 503)
        entry = server.entry()
        assert (entry["status"], entry["version"]) == (status, 1)
        problems.append((headers, body))
        server.backend.error = None
        for number in (2, 3):  # the first one after ModelUnavailable has no company
            caller.ask(GOOD)
            assert (await caller.answer(number))[0] == 200
        assert server.inside == (0, 0, 0)
    assert problems[0] == problems[1]


@by_each_protocol
async def test_large_answers_are_compressed_where_that_is_asked_for(
    server: Server, protocol: str
) -> None:
    """As the endpoint does it, with the rows that the call gave."""
    server.backend.text = "long " * 1000
    caller = server.caller()
    caller.ask_by(protocol, "Accept-Encoding: gzip")
    assert is_direct(caller)
    status, headers, body = await caller.answer()
    assert (status, headers["content-encoding"]) == (200, "gzip")
    assert len(body) < 1000
    assert len(server.backend.calls) == 1
    assert (server.entry()["rows"], server.inside) == (1, (0, 0, 0))


async def test_the_deadline_holds(server: Server) -> None:
    """Past it the caller has 504, and the call that nobody waits for is given up."""
    (model,) = server.catalog.models.values()
    options = model.options.model_copy(update={"timeout_s": 0.05})
    server.feed.catalog = catalog(model.model_copy(update={"options": options}))
    server.backend.go.clear()
    caller = server.caller()
    caller.ask(GOOD)
    assert is_direct(caller)
    status, _, body = await caller.answer()
    assert (status, json.loads(body)["code"]) == (504, "deadline_exceeded")
    assert server.inside == (0, 0, 0)


async def test_who_leaves_leaves_nothing(server: Server) -> None:
    """Its rows aren't sent any more, those of the others are; it has a line without a status."""
    server.backend.go.clear()
    first, leaving, staying = server.caller(), server.caller(), server.caller()
    for number, caller in enumerate((first, leaving, staying)):
        caller.ask(b'{"x": %d, "n": 1}' % number)
    await until(lambda: len(server.backend.calls) == 1)
    leaving.hang_up()
    assert server.entry()["status"] is None
    server.backend.go.set()
    await first.answer()
    await staying.answer()
    assert [call.frame.columns[0].tolist() for call in server.backend.calls] == [[0.0], [2.0]]
    assert leaving.transport.written == b""
    assert server.inside == (0, 0, 0)


async def test_who_leaves_while_the_answer_is_made_disturbs_nobody(server: Server) -> None:
    """Between the call's end and the answer's write nothing is counted or given back twice."""
    caller = server.caller()
    server.backend.go.clear()
    caller.ask(GOOD)
    await until(lambda: len(server.backend.calls) == 1)
    queued: Any = caller.protocol.cycle._answer._begun.queued  # type: ignore[attr-defined]
    queued.future.set_result(CallResult(output=("columns", ["x", "t"], [[1.0], ["t"]])))
    caller.hang_up()
    server.backend.go.set()
    await asyncio.sleep(0)
    assert caller.transport.written == b""
    assert server.inside == (0, 0, 0)


async def test_an_end_behind_a_pipelined_request_is_the_end_of_all(server: Server) -> None:
    """What can't be read closes the connection: who was under way on it gives back what it held,
    and writes nothing any more."""
    server.backend.go.clear()
    caller = server.caller()
    caller.send(request(GOOD) + request(GOOD) + b"nonsense\r\n\r\n")
    assert caller.transport.is_closed
    caller.hang_up()
    written = caller.transport.written
    server.backend.go.set()
    await until(lambda: not server.state.tasks)
    assert caller.transport.written == written
    assert server.inside == (0, 0, 0)


async def test_who_does_not_read_is_waited_for(server: Server) -> None:
    """While the transport has as much as it takes, the endpoint waits with the next answer."""
    caller = server.caller()
    caller.protocol.pause_writing()
    caller.ask(GOOD)
    assert not is_direct(caller)
    await asyncio.sleep(0)
    assert caller.transport.written == b""
    caller.protocol.resume_writing()
    assert (await caller.answer())[0] == 200


@by_each_protocol
async def test_a_shadow_is_asked_what_was_answered_directly(
    monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """After the answer, which is written in one piece, and by the request's id."""
    server = Server(monkeypatch, has_shadow=True)
    await server.warm()
    await server.shadowing.settle()
    server.shadowing.take()
    server.backend.calls.clear()
    caller = server.caller()
    caller.ask_by(protocol)
    assert is_direct(caller)
    assert (await caller.answer())[0] == 200
    assert caller.transport.writes == 1
    await server.shadowing.settle()
    assert [call.version.number for call in server.backend.calls] == [1, 2]
    assert server.shadowing.take()["a b"].outcomes == {"equal": 1}


@by_each_protocol
async def test_a_canary_has_its_callers_directly(
    monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """The same as by the ordinary way, and what comes of them is counted."""
    server = Server(monkeypatch, canary=CanaryRule(selector="2", percent=40.0))
    await server.warm()
    sessions = [f"X-Session-ID: s{number}" for number in range(40)]
    wanted = []
    for session in sessions:
        name, value = session.lower().encode().split(b": ")
        resolution = server.service.resolve("a b", None, [(name, value)])
        wanted.append(str(resolution.version.number))
    assert {*wanted} == {"1", "2"}
    for _ in range(2):  # the first one of a version warms it
        caller, before = server.caller(), server.trials.counts().get("the trial", (0, 0))
        for session in sessions:
            caller.ask_by(protocol, session)
            await caller.answer(len(caller.answers) + 1)
        assert [headers["x-model-version"] for _, headers, _ in caller.answers] == wanted
        if protocol == "inference_v2":
            told = [json.loads(body)["model_version"] for _, _, body in caller.answers]
            assert told == wanted
        requests, errors = server.trials.counts()["the trial"]
        assert (requests - before[0], errors) == (wanted.count("2"), 0)
    assert caller.transport.writes == len(sessions)


@by_each_protocol
async def test_what_is_captured_is_left_to_the_endpoint(
    monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """Of a share each request is drawn once; those that aren't kept are answered directly."""
    server = Server(monkeypatch, captured_percent=50.0)
    draws = iter([0.9, 0.1, 0.9])
    monkeypatch.setattr("gateway.http.predict.capturing.random.random", lambda: next(draws))
    await server.warm()
    for is_kept in (True, False):
        caller = server.caller()
        caller.ask_by(protocol)
        assert is_direct(caller) is not is_kept
        assert (await caller.answer())[0] == 200
        await until(lambda: not server.state.tasks)
        assert len(server.captured.kept) == 1
    (kept,) = server.captured.kept
    assert (kept.protocol, kept.status) == (protocol, 200)


async def test_who_goes_to_a_canary_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the canary can't be asked directly: it isn't warm."""
    server = Server(monkeypatch, canary=CanaryRule(selector="2", percent=50.0))
    await server.warm()
    draws = iter([0.1, 0.9, 0.9])
    monkeypatch.setattr("gateway.canary.random", lambda: next(draws))
    caller = server.caller()
    caller.ask(GOOD)
    assert (await caller.answer())[1]["x-model-version"] == "2"
    caller.ask(GOOD)
    assert (await caller.answer(2))[1]["x-model-version"] == "1"
    assert next(draws) == 0.9


async def test_answers_leave_nothing_to_the_collector(server: Server) -> None:
    """It comes by late (`deployments.ingress.replica`), and rows would be kept until then."""
    caller = server.caller()
    caller.ask(GOOD)
    await caller.answer()
    gc.collect()
    gc.disable()
    try:
        before = held()
        for number in range(2, 12):
            caller.ask(GOOD)
            await caller.answer(number)
        assert held() - before < 5
    finally:
        gc.enable()


def held() -> int:
    """How many objects of requests there are."""
    # By type: `isinstance` asks objects for `__class__`, and some that are about do things then.
    return sum(issubclass(type(each), Begun | CallResult | Visit) for each in gc.get_objects())


async def test_a_server_that_ends_answers_and_closes(server: Server) -> None:
    """What was accepted is answered, and the caller is told that the connection ends."""
    server.backend.go.clear()
    caller = server.caller()
    caller.ask(GOOD)
    caller.protocol.shutdown()
    server.backend.go.set()
    status, headers, _ = await caller.answer()
    assert (status, headers["connection"]) == (200, "close")
    assert caller.transport.is_closed


async def test_keys_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one it is 401; each request counts once against a key's rate, and past that it is
    429."""
    keys = Keys(entry_of("one", SECRET, ["predict"], rate="1/3"))
    access = Access(keys=keys)
    monkeypatch.setattr(access.usage, "_clock", lambda: 0.0)
    server = Server(monkeypatch, access=access)
    caller = server.caller()
    bearer = f"Authorization: Bearer {SECRET}"
    caller.ask(GOOD, bearer)
    assert (await caller.answer())[0] == 200
    monkeypatch.setattr(GatewayProtocol, "direct", server.direct)
    caller.ask(GOOD)
    assert (await caller.answer(2))[0] == 401
    for number, status in enumerate((200, 200, 429, 429), 3):
        caller.ask(GOOD, bearer)
        assert (await caller.answer(number))[0] == status
    assert server.entry()["key"] == "one"
    assert access.usage.refused["one"] == 2
    assert access.usage.requests["one"] == 5


@pytest.mark.parametrize("length", ["26", "0" * 5000 + "26"])
async def test_a_body_s_limit_holds(monkeypatch: pytest.MonkeyPatch, length: str) -> None:
    """Also one that is below what is answered directly, however the length is written."""
    server = await Server(monkeypatch, max_body_bytes=24).warm()
    caller = server.caller()
    caller.send(request(b'{"x": 1, "n": 12345678901}').replace(b"26", length.encode()))
    assert (await caller.answer())[0] == 413


async def test_limits_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than may wait for a model is 429, at once."""
    limits = AdmissionLimits(model_requests=2)
    server = await Server(monkeypatch, limits=limits).warm()
    server.backend.go.clear()
    callers = [server.caller() for _ in range(3)]
    for caller in callers:
        caller.ask(GOOD)
    assert (await callers[2].answer())[0] == 429
    server.backend.go.set()
    assert [(await caller.answer())[0] for caller in callers[:2]] == [200, 200]


async def test_what_cannot_be_read_is_a_problem(server: Server) -> None:
    """After a direct answer and in the middle of a request."""
    for piece in (b"nonsense\r\n\r\n", request(GOOD)[:30] + b"\x00\r\n\r\n"):
        caller = server.caller()
        caller.ask(GOOD)
        await caller.answer()
        caller.send(piece)
        status, headers, _ = await caller.answer(2)
        assert (status, headers["content-type"]) == (400, "application/problem+json")
        assert caller.transport.is_closed


async def test_a_websocket_s_handshake_is_a_plain_request(server: Server) -> None:
    """It is answered as what it asks for is."""
    caller = server.caller()
    lines = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    caller.send("\r\n".join(["GET /models HTTP/1.1", "Host: g", *lines, "", ""]).encode())
    assert (await caller.answer())[0] == 200
