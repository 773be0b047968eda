"""Canaries over fakes: which requests go there on which routes, what is counted and shown."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from gateway.batching.batcher import MicroBatcher
from gateway.canary import Canary, CanaryRule, CanaryState, Trials
from gateway.catalog import Catalog
from gateway.contract.agents import EMBEDDINGS
from gateway.errors import GatewayError, ModelFailed
from gateway.http.app import create_app
from gateway.http.predict.body import HttpLimits
from gateway.metrics.collection import Measured
from gateway.metrics.counters import Traffic
from gateway.ports import Call, CallResult
from gateway.prediction import PredictionService
from tests.support.catalogs import catalog, served, signature, version
from tests.support.static_feed import StaticFeed

HEADER = "X-Session-ID"


def _catalog(percent: float = 100, state: CanaryState = "running", **fields: Any) -> Catalog:
    rule = CanaryRule(selector="challenger", percent=percent, max_error_ratio=0.1)
    canary = Canary(rule=rule, version=2, state=state, trial="t", **fields)
    aliases = {"champion": 1, "challenger": 2}
    model = served(version(1), version(2), default=1, canary=canary, aliases=aliases)
    return catalog(model, served(version(1), name="plain"))


class Bench:
    """The application over a model that answers its version's number, or fails."""

    def __init__(self) -> None:
        self.feed = StaticFeed(_catalog())
        self.trials, self.traffic = Trials(), Traffic()
        self.error: GatewayError | None = None
        self.embeddings: list[Any] = []
        service = PredictionService(
            feed=self.feed,
            submit=MicroBatcher(self).submit,
            default_timeout_s=5,
            trials=self.trials,
        )
        self.app = create_app(
            service=service,
            feed=self.feed,
            limits=HttpLimits(max_body_bytes=10_000),
            traffic=self.traffic,
            measurements=self,
        )
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, raise_app_exceptions=False),
            base_url="http://gw",
        )

    async def call(self, call: Call) -> CallResult:
        if self.error is not None and call.version.number == 2:
            raise self.error
        if self.embeddings:
            return CallResult(output=("columns", ["data"], [[self.embeddings]]))
        answer = np.full(call.frame.rows, float(call.version.number))
        return CallResult(output=("columns", ["y"], [answer]))

    async def measured(self) -> Measured:
        reading = self.traffic.reading()
        return Measured(replicas={"a": reading, "b": reading})

    async def predict(self, path: str = "/models/m/predict", **headers: str) -> int:
        """The version that answers by its own word and by the header, which must be the same."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        response = await self.client.post(path, json=_body(path), headers=sent)
        assert response.status_code == 200, response.text
        number = int(response.headers["x-model-version"])
        assert f"{number}.0" in response.text
        return number


def _body(path: str) -> Any:
    if "/v2/" in path:
        column = {"name": "x", "datatype": "FP64", "shape": [1, 1], "data": [1.0]}
        return {"inputs": [column]}
    if path.endswith("/invocations"):
        return {"dataframe_records": [{"x": 1.0}]}
    return {"x": 1.0}


@pytest.fixture
def bench() -> Bench:
    return Bench()


PREDICTIONS = ("/models/m/predict", "/models/m/invocations", "/v2/models/m/infer")


@pytest.mark.parametrize("path", PREDICTIONS)
async def test_a_request_that_names_no_version_may_go_to_the_canary(
    bench: Bench, path: str
) -> None:
    """On every route; the answer tells the version."""
    assert await bench.predict(path) == 2
    bench.feed.catalog = _catalog(0)
    assert await bench.predict(path) == 1


async def test_openais_clients_go_to_the_canary_too(bench: Bench) -> None:
    """By a model's name alone; one that names the version gets it."""
    text = signature(("input", "string"), outputs=())
    versions = (version(1, text, task=EMBEDDINGS), version(2, text, task=EMBEDDINGS))
    canary = Canary(rule=CanaryRule(selector="2", percent=100), version=2, state="running")
    bench.feed.catalog = catalog(served(*versions, default=1, canary=canary))
    bench.embeddings = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
    for model, number in (("m", 2), ("m/1", 1)):
        body = {"model": model, "input": "hello"}
        answer = await bench.client.post("/v1/embeddings", json=body)
        assert (answer.status_code, answer.headers["x-model-version"]) == (200, str(number))


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/models/m/predict", {"X_Model_Version": "1"}),
        ("/models/m/predict", {"X_Model_Version": "champion"}),
        ("/models/m/predict", {"serve_multiplexed_model_id": "1"}),
        ("/models/m/versions/1/invocations", {}),
        ("/v2/models/m/versions/1/infer", {}),
    ],
)
async def test_who_names_a_version_gets_it(
    bench: Bench, path: str, headers: dict[str, str]
) -> None:
    """By header or path, whatever share the canary has and whatever session is sent."""
    assert await bench.predict(path, **headers, X_Session_ID="s") == 1


async def test_a_session_is_on_one_side_on_all_routes(bench: Bench) -> None:
    """The side that its value falls on; both sides have some."""
    bench.feed.catalog = _catalog(50)
    sides = []
    for number in range(12):
        session = {"X_Session_ID": f"s{number}"}
        answered = {await bench.predict(path, **session) for path in PREDICTIONS}
        assert len(answered) == 1
        sides.append(answered.pop())
    assert sides == [1, 1, 2, 1, 2, 1, 1, 1, 2, 1, 2, 2]


@pytest.mark.parametrize("state", ["waiting", "stopped", "ended"])
async def test_nobody_goes_to_a_canary_that_does_not_run(bench: Bench, state: CanaryState) -> None:
    """However large its share."""
    bench.feed.catalog = _catalog(state=state, why="It is so.")
    assert await bench.predict() == 1


async def test_what_only_asks_about_a_model_is_told_of_the_default(bench: Bench) -> None:
    """Readiness and metadata aren't drawn, and a model without a canary has none."""
    assert (await bench.client.get("/v2/models/m/ready")).status_code == 200
    assert (await bench.client.get("/models/m/ping")).status_code == 200
    service = PredictionService(feed=bench.feed, submit=bench.call, default_timeout_s=5)
    assert service.resolve("m", None).version.number == 1
    assert service.resolve("plain", None).canary is None


async def test_what_comes_of_the_canary_is_counted(bench: Bench) -> None:
    """Its answers and its failures, of those who were sent there: not of those who asked for it by
    name, nor what callers did wrong."""
    await bench.predict()
    assert await bench.predict(X_Model_Version="2") == 2
    await bench.client.post("/models/m/predict", json={"x": "no number"})
    assert bench.trials.counts() == {"t": (1, 0)}
    bench.error = ModelFailed("It failed.")
    answer = await bench.client.post("/models/m/predict", json={"x": 1.0})
    assert answer.status_code == 500
    # MLflow's protocol says 400 of that; it is the model's doing all the same.
    answer = await bench.client.post("/models/m/invocations", json=_body("/invocations"))
    assert answer.status_code == 400
    assert bench.trials.counts() == {"t": (3, 2)}


async def test_a_canary_is_told_with_its_state(bench: Bench) -> None:
    """In `/models`, in `/models/{name}`, and as a warning where nobody goes there."""
    told = (await bench.client.get("/models/m")).json()
    assert told["canary"] == {
        "alias": "challenger",
        "version": 2,
        "percent": 100,
        "state": "running",
        "why": None,
        "header": HEADER,
        "max_error_ratio": 0.1,
        "min_requests": 20,
    }
    assert told["warnings"] == []
    bench.feed.catalog = _catalog(state="stopped", why="It fails.")
    (listed, plain) = (await bench.client.get("/models")).json()["models"]
    assert (listed["canary"]["state"], listed["canary"]["why"]) == ("stopped", "It fails.")
    assert listed["warnings"] == ["Nobody goes to the canary challenger: It fails."]
    assert plain["canary"] is None


async def test_canaries_are_in_the_metrics(bench: Bench) -> None:
    """A running one with its share, for the dashboard; a stopped one as such, for an alert."""
    told = (await bench.client.get("/metrics")).text
    assert 'modelmux_canary_share{model="m",version="2"} ' in told
    assert "modelmux_canary_stopped{" not in told
    bench.feed.catalog = _catalog(state="stopped", why="It fails.")
    told = (await bench.client.get("/metrics")).text
    assert 'modelmux_canary_stopped{model="m",version="2"} 1.0' in told
    assert "modelmux_canary_share{" not in told


async def test_the_page_shows_both_sides(bench: Bench) -> None:
    """Requests, errors and how long they take, of all ingress replicas; and the state, with why."""
    for number in range(4):
        await bench.predict(X_Model_Version="1")
        bench.error = ModelFailed("It failed.") if number == 3 else None
        await bench.client.post("/models/m/predict", json={"x": 1.0})
    page = (await bench.client.get("/catalog/m")).text
    card = page[page.index('id="canary"') :]
    card = " ".join(card[: card.index("</section>")].split())
    assert "Canary: version 2" in card
    assert "100% of the requests that name no version" in card
    assert '<th scope="row">Default</th> <td>1</td> <td>8</td> <td>0 (0.0%)</td>' in card
    assert '<th scope="row">Canary</th> <td>2</td> <td>8</td> <td>2 (25.0%)</td>' in card
    assert " ms</td>" in card
    bench.feed.catalog = _catalog(state="stopped", why="It <fails>.")
    page = (await bench.client.get("/catalog/m")).text
    assert "It &lt;fails&gt;." in page
    assert "Canary 2 stopped" in page
    assert 'id="canary"' not in (await bench.client.get("/catalog/plain")).text


async def test_an_answer_that_is_no_embedding_names_its_version(bench: Bench) -> None:
    """What can't be said as OpenAI's object is the version's failure, and says whose."""
    text = signature(("input", "string"))
    bench.feed.catalog = catalog(served(version(1, text, task=EMBEDDINGS)))
    body = {"model": "m", "input": "a"}
    answer = await bench.client.post("/v1/embeddings", json=body)
    assert (answer.status_code, answer.headers["x-model-version"]) == (500, "1")
    assert answer.json()["error"]["code"] == "invalid_model_output"
