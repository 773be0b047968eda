"""Routes where keys are on, and the webhook's: over fakes, by both doors to predictions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from mlflow.types import ColSpec
from mlflow.webhooks.delivery import _generate_hmac_signature
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.types import ASGIApp

from deployments.ingress.serve_middleware import Front, RequestFront
from gateway.http.access_control import Access
from gateway.http.app import create_app
from gateway.http.boundary import Boundary
from gateway.http.predict.body import HttpLimits
from gateway.metrics.families import REQUESTS
from gateway.ports import Call, CallResult
from gateway.prediction import PredictionService
from gateway.security.api_keys import Keyring, entry_of, parse_keys
from tests.support.catalogs import catalog, served, version
from tests.support.echo_gateway import EchoGateway, signature
from tests.support.static_feed import StaticFeed

CATALOG = catalog(*(served(version(1), name=name) for name in ("shop a", "shop b", "salaries")))
SHOP, READER, ADMIN, MIXED = "of-shop", "of-reader", "of-admin", "of-mixed"
ENTRIES = (
    entry_of("shop", SHOP, ["predict:shop *"]),
    entry_of("reader", READER, ["read"]),
    entry_of("operator", ADMIN, ["admin"]),
    entry_of("mixed", MIXED, ["read", "predict:salaries"]),
)
MINIMAL = signature([ColSpec("double", "x")])
WEBHOOK_SECRET = "signed with this"  # pragma: allowlist secret


class Keys:
    """A source of keys that the test changes."""

    def __init__(self) -> None:
        self.keyring: Keyring = parse_keys("\n".join(ENTRIES))


class Backend:
    async def call(self, call: Call) -> CallResult:
        return CallResult(output=("columns", ["y"], [call.frame.columns[0]]))


class Bench:
    """The application with keys on, and what stands behind it."""

    def __init__(self, *, public: frozenset[str] = frozenset(), in_front: bool = False) -> None:
        self.keys = Keys()
        self.feed = StaticFeed(CATALOG)
        app = create_app(
            service=PredictionService(feed=self.feed, submit=Backend().call, default_timeout_s=5),
            feed=self.feed,
            limits=HttpLimits(max_body_bytes=1000),
            access=Access(keys=self.keys, public=public),
            webhook_secret=WEBHOOK_SECRET,
        )
        self.front: ASGIApp = RequestFront(app) if in_front else app
        Front.routes = app.state.predictions
        Front.predictions = Boundary(app.state.predictions) if in_front else None
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.front, raise_app_exceptions=False),
            base_url="http://gw",
        )

    async def ask(self, method: str, path: str, secret: str | None = None) -> httpx.Response:
        headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
        body = {"x": 1} if method == "POST" else None
        return await self.client.request(method, path, json=body, headers=headers)


@pytest.fixture(params=[False, True], ids=["through FastAPI", "past FastAPI"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    made = Bench(in_front=request.param)
    async with made.client:
        yield made
    Front.routes = Front.predictions = None


@pytest.mark.parametrize(
    ("method", "path", "statuses"),  # of nobody, shop, reader, operator, mixed
    [
        ("GET", "/healthz", (200, 200, 200, 200, 200)),
        ("HEAD", "/readyz", (200, 200, 200, 200, 200)),
        ("OPTIONS", "/models", (401, 204, 204, 204, 204)),
        ("GET", "/docs", (200, 200, 200, 200, 200)),
        ("GET", "/docs/assets/swagger-ui.css", (200, 200, 200, 200, 200)),
        ("GET", "/models", (401, 200, 200, 200, 200)),
        ("GET", "/models/shop a", (401, 200, 200, 200, 200)),
        ("GET", "/models/salaries", (401, 403, 200, 200, 200)),
        ("GET", "/models/unknown", (401, 403, 404, 404, 404)),
        ("GET", "/openapi.json", (401, 200, 200, 200, 200)),
        ("GET", "/models/salaries/openapi.json", (401, 403, 200, 200, 200)),
        ("GET", "/models/unknown/openapi.json", (401, 403, 404, 404, 404)),
        ("GET", "/metrics", (401, 403, 200, 200, 200)),
        ("GET", "/nowhere", (401, 404, 404, 404, 404)),
        ("PUT", "/models", (401, 405, 405, 405, 405)),
        ("POST", "/models/shop a/predict", (401, 200, 403, 200, 403)),
        ("POST", "/models/salaries/predict", (401, 403, 403, 200, 200)),
        ("POST", "/models/unknown/predict", (401, 403, 403, 404, 403)),
        # Ways to write a path that two readers might read differently.
        ("POST", "/models/salaries/predict%0A", (401, 403, 403, 200, 200)),
        ("POST", "/models/shop a%2Fpredict", (401, 200, 403, 200, 403)),
        ("POST", "/models/shop a%2F..%2Fsalaries/predict", (401, 404, 404, 404, 404)),
        ("POST", "/models/salaries/predict/", (401, 403, 403, 200, 200)),
        ("POST", "//models/salaries/predict", (401, 404, 404, 404, 404)),
        ("GET", "/healthz%0A", (401, 200, 200, 200, 200)),
        ("POST", "/registry/sync", (401, 403, 403, 200, 403)),
    ],
)
async def test_each_route_needs_what_the_table_says(
    bench: Bench, method: str, path: str, statuses: tuple[int, ...]
) -> None:
    """The same for predictions that go past FastAPI and for those that don't."""
    answers = [await bench.ask(method, path, s) for s in (None, SHOP, READER, ADMIN, MIXED)]
    assert tuple(answer.status_code for answer in answers) == statuses
    for answer in answers:
        if answer.status_code in (401, 403):
            code = {401: "unauthenticated", 403: "forbidden"}[answer.status_code]
            assert answer.json()["code"] == code
            assert answer.headers["WWW-Authenticate"].startswith("Bearer ")


async def test_a_forbidden_model_cannot_be_told_from_an_unknown_one(bench: Bench) -> None:
    """But for its own path and request id, the answer about either is the same."""
    for method, path in (("POST", "/models/{}/predict"), ("GET", "/models/{}")):
        answers = []
        for name in ("salaries", "unknown"):
            answer = (await bench.ask(method, path.format(name), SHOP)).json()
            answers.append({**answer, "instance": "", "request_id": ""})
        assert answers[0] == answers[1]


async def test_a_key_for_some_models_does_not_learn_of_others(bench: Bench) -> None:
    """Neither the list nor the document names what it may not call; `read` shows everything."""
    for path in ("/models", "/openapi.json"):
        shop, reader = [(await bench.ask("GET", path, secret)).text for secret in (SHOP, READER)]
        assert "salaries" not in shop
        assert ("shop a" in shop, "shop b" in shop) == (True, True)
        assert "salaries" in reader


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "")],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer ")],
        [("Authorization", "Bearer wrong")],
        [("Authorization", f"Basic {ADMIN}")],
        [("Authorization", ADMIN)],
        [("Authorization", f"Bearer {ADMIN} {ADMIN}")],
        [("Authorization", f"Bearer {ADMIN}"), ("Authorization", f"Bearer {ADMIN}")],
        [("X-API-Key", ADMIN)],
    ],
    ids=str,
)
async def test_anything_but_one_known_bearer_key_is_unauthenticated(
    bench: Bench, headers: list[tuple[str, str]]
) -> None:
    """401 with a challenge, on each kind of route; the body never repeats what was sent."""
    for method, path in (("POST", "/models/shop a/predict"), ("GET", "/models")):
        answer = await bench.client.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="modelmux"')
        assert ADMIN not in answer.text


async def test_the_scheme_s_case_does_not_matter(bench: Bench) -> None:
    """RFC 9110, section 11.1."""
    answer = await bench.client.get("/models", headers={"Authorization": f"bEARER  {READER}"})
    assert answer.status_code == 200


async def test_keys_that_change_count_at_once(bench: Bench) -> None:
    """What a key may do is asked anew with each request."""
    assert (await bench.ask("POST", "/models/shop a/predict", SHOP)).status_code == 200
    bench.keys.keyring = parse_keys(ENTRIES[1])
    assert (await bench.ask("POST", "/models/shop a/predict", SHOP)).status_code == 401
    assert (await bench.ask("GET", "/models", READER)).status_code == 200
    bench.keys.keyring = Keyring()
    assert (await bench.ask("GET", "/models", READER)).status_code == 401


@pytest.mark.parametrize("path", ["/models", "/models/salaries/predict", "/v1/models"])
async def test_beyond_its_rate_a_key_is_429_whatever_it_asks_for(bench: Bench, path: str) -> None:
    """In the envelope, with the time to wait; other keys are answered as before."""
    mixed = entry_of("mixed", MIXED, ["read", "predict:salaries"], rate="0.01")
    bench.keys.keyring = parse_keys("\n".join([*ENTRIES[:-1], mixed]))
    method = "POST" if path.endswith("predict") else "GET"
    assert (await bench.ask(method, path, MIXED)).status_code == 200
    refused = await bench.ask(method, path, MIXED)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 100
    assert (await bench.ask(method, path, ADMIN)).status_code == 200


async def test_predictions_without_a_key_are_counted_in_each_protocol() -> None:
    """Also those that come by the application, and not by the way before it."""
    gateway = EchoGateway(MINIMAL, access=Access(keys=Keys()))
    paths = {
        "/models/m/predict": "modelmux",
        "/models/m/versions/1/invocations": "mlflow",
        "/v2/models/m/infer": "inference_v2",
        "/v1/chat/completions": "openai",
    }
    async with gateway.client() as client:
        for path in paths:
            assert (await client.post(path, json={})).status_code == 401, path
    counted = gateway.traffic.reading()[REQUESTS.name]
    assert {(labels[2], labels[3]): count for labels, count in counted} == {
        ("401", protocol): 1 for protocol in paths.values()
    }


async def test_documents_and_metrics_are_open_by_setting() -> None:
    """`docs` opens every document and nothing else, `metrics` the metrics (there are none yet)."""
    async with Bench(public=frozenset({"docs"})).client as client:
        document = await client.get("/openapi.json")
        assert "salaries" in document.text
        assert (await client.get("/models/salaries/openapi.json")).status_code == 200
        assert 'data-keys="off"' in (await client.get("/docs")).text
        assert (await client.get("/models")).status_code == 401
    async with Bench(public=frozenset({"metrics"})).client as client:
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.get("/openapi.json")).status_code == 401


async def test_the_page_asks_for_a_key_and_names_no_model(bench: Bench) -> None:
    """The page and its files are open; they say nothing about any model, and ask nobody else."""
    page = (await bench.ask("GET", "/docs")).text
    assert "salaries" not in page
    assert "://" not in page
    assert 'data-keys="on"' in page
    for asset in ("docs.js", "swagger-ui-bundle.js", "swagger-ui.css", "favicon.svg"):
        assert f"docs/assets/{asset}" in page
        assert (await bench.ask("GET", f"/docs/assets/{asset}")).status_code == 200


async def test_the_document_says_where_a_key_is_needed(bench: Bench) -> None:
    """Valid OpenAPI 3.1 whose operations name the scheme, but those that need no key."""
    for path in ("/openapi.json", "/models/shop a/openapi.json"):
        document: dict[str, Any] = (await bench.ask("GET", path, ADMIN)).json()
        OpenAPIV31SpecValidator(document).validate()
        assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
        for route, operations in document["paths"].items():
            for operation in operations.values():
                is_open = route in ("/healthz", "/readyz", "/webhooks/mlflow")
                assert ("security" in operation) != is_open, route
                assert ("401" in operation["responses"]) != is_open, route


async def test_where_keys_are_off_nothing_speaks_of_them() -> None:
    """No scheme, no 401, and whatever comes as a key is ignored."""
    feed = StaticFeed(CATALOG)
    app = create_app(
        service=PredictionService(feed=feed, submit=Backend().call, default_timeout_s=5),
        feed=feed,
        limits=HttpLimits(max_body_bytes=1000),
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://gw"
    ) as client:
        document = (await client.get("/openapi.json")).json()
        assert "securitySchemes" not in document["components"]
        for operations in document["paths"].values():
            for operation in operations.values():
                assert "security" not in operation
                assert "401" not in operation["responses"]
        anyone = {"Authorization": "Bearer whatever"}
        answer = await client.post("/models/salaries/predict", json={"x": 1}, headers=anyone)
        assert answer.status_code == 200
        unset = await client.post("/webhooks/mlflow", json={})
        assert (unset.status_code, unset.json()["code"]) == (403, "forbidden")
        assert "webhook_secret" in unset.json()["detail"]
        assert feed.looks == 0


# --- the webhook ------------------------------------------------------------------------------


def delivery(body: str = "{}", identifier: str = "d1", age_s: float = 0) -> dict[str, Any]:
    """A request as MLflow makes it, for `httpx`."""
    timestamp = str(int(time.time() - age_s))
    return {
        "content": body.encode(),
        "headers": {
            "Content-Type": "application/json",
            "X-MLflow-Delivery-Id": identifier,
            "X-MLflow-Timestamp": timestamp,
            "X-MLflow-Signature": _generate_hmac_signature(
                WEBHOOK_SECRET, identifier, timestamp, body
            ),
        },
    }


async def test_a_genuine_delivery_is_accepted_and_has_the_registry_looked_at(bench: Bench) -> None:
    """202 without a body, whatever the delivery's own body says; no key is asked for."""
    answer = await bench.client.post("/webhooks/mlflow", **delivery("this is not even JSON"))
    assert (answer.status_code, answer.content) == (202, b"")
    await asyncio.wait_for(bench.feed.looked.wait(), timeout=5)


async def test_a_delivery_whose_sender_leaves_has_no_effect(bench: Bench) -> None:
    """Nothing is answered, and nobody looks at the registry."""

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise AssertionError(message)

    headers = [(name.lower().encode(), value.encode()) for name, value in
               delivery()["headers"].items()]  # fmt: skip
    path = "/webhooks/mlflow"
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(),
             "query_string": b"", "headers": headers}  # fmt: skip
    await bench.front(scope, receive, send)
    await asyncio.sleep(0)  # the turn in which a look would begin
    assert not bench.feed.looked.is_set()


@pytest.mark.parametrize("header", ["Delivery-Id", "Timestamp", "Signature"])
@pytest.mark.parametrize("value", [None, "wrong"])
async def test_missing_and_wrong_headers_have_no_effect(
    bench: Bench, header: str, value: str | None
) -> None:
    """403 in the envelope, and nobody looks at the registry."""
    request = delivery()
    del request["headers"][f"X-MLflow-{header}"]
    if value is not None:
        request["headers"][f"X-MLflow-{header}"] = value
    answer = await bench.client.post("/webhooks/mlflow", **request)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    await asyncio.sleep(0)  # the turn in which a look would begin
    assert bench.feed.looks == 0


async def test_old_repeated_and_large_deliveries_have_no_effect(bench: Bench) -> None:
    """A replay is refused for as long as its time would still be good, and after."""
    assert (await bench.client.post("/webhooks/mlflow", **delivery())).status_code == 202
    await asyncio.wait_for(bench.feed.looked.wait(), timeout=5)
    for request, status in (
        (delivery(), 403),
        (delivery(identifier="d2", age_s=400), 403),
        (delivery(identifier="d3", body="x" * (1024 * 1024 + 1)), 413),
    ):
        assert (await bench.client.post("/webhooks/mlflow", **request)).status_code == status
    await asyncio.sleep(0)  # the turn in which a look would begin
    assert bench.feed.looks == 1
