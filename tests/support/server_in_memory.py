"""A gateway's HTTP server without its socket: the protocol over transports in memory, the whole
application, and a backend that does as it is told."""

from __future__ import annotations

import asyncio
import gc
import json
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
from gateway.http.access_control import Access
from gateway.http.access_log import AccessJournal
from gateway.http.app import create_app
from gateway.http.boundary import Boundary
from gateway.http.predict.body import HttpLimits
from gateway.http.predict.direct.answer import DirectAnswer
from gateway.http.predict.direct.predictions import DirectPredictions
from gateway.http.server.protocol import GatewayProtocol
from gateway.metrics.counters import Traffic
from gateway.metrics.families import REQUEST_DURATION, REQUEST_ROWS, REQUESTS
from gateway.ports import Call, CallResult
from gateway.prediction import PredictionService
from gateway.security.api_keys import parse_keys
from gateway.shadow.shadowing import Shadowing
from gateway.small_predictions import Begun, Jointly
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


async def is_direct(caller: Caller) -> bool:
    """Whether what is on its way has no task of its own, once it is read."""
    await asyncio.sleep(0)
    return not caller.server.state.tasks


def held() -> int:
    """How many objects of requests there are."""
    kinds = Begun | Jointly | CallResult | Visit | DirectAnswer
    # By type: `isinstance` asks objects for `__class__`, and some that are about do things then.
    return sum(issubclass(type(each), kinds) for each in gc.get_objects())


def told_of(kept: Kept) -> tuple[Any, ...]:
    """What a captured request says, but for moments, its id and about how large it is."""
    kept.stands_alone()
    frames = kept.request and [
        (list(places), frame.key, list(map(list, frame.columns)))
        for places, frame in kept.request.frames
    ]
    outputs = kept.outputs and [
        (list(places), output[0], *(list(map(list, each)) for each in output[1:3]))
        for places, output in kept.outputs
    ]
    version = kept.resolution.version.number
    return (
        kept.protocol, kept.status, kept.error, version, kept.asked, frames, outputs,
        kept.correlation_id,
    )  # fmt: skip
