"""Routes over fakes: headers, envelopes, documents."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.catalog import Catalog
from gateway.errors import GatewayError, ModelUnavailable, all_errors
from gateway.http.access_log import AccessJournal
from gateway.http.app import DIALECTS, create_app
from gateway.http.predict.body import HttpLimits
from gateway.http.protocols.openai.endpoint import PATHS as OPENAI_PATHS
from gateway.ports import Call, CallResult, RegistryStatus
from gateway.prediction import PredictionService
from tests.support.catalogs import BREAKING, catalog, served, signature, version
from tests.support.static_feed import StaticFeed

ODD = "Größe {x}/%41 & #1?"


class FakeBackend:
    """A model that answers twice its column, or fails as told."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.calls: list[Call] = []

    async def call(self, call: Call) -> CallResult:
        self.calls.append(call)
        if self.error is not None:
            raise self.error
        doubled = np.asarray(call.frame.columns[0]) * 2
        return CallResult(output=("columns", ["y"], [doubled]), timings_ms={"model": 1.0})


class Bench:
    """The app over fakes, and a client of it."""

    def __init__(self, now: Catalog | None) -> None:
        self.feed = StaticFeed(now)
        self.backend = FakeBackend()
        service = PredictionService(feed=self.feed, submit=self.backend.call, default_timeout_s=5)
        self.lines: list[bytes] = []
        self.journal = AccessJournal(self._written, as_json=True)
        app = create_app(
            service=service,
            feed=self.feed,
            limits=HttpLimits(max_body_bytes=1000),
            journal=self.journal,
        )
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gw")

    def _written(self, lines: bytes) -> bool:
        self.lines.append(lines)
        return True


CATALOG = catalog(
    served(version(1), version(2, BREAKING), default=1, description="Doubles *x*."),
    served(version(1, signature(("x", "double"))), name=ODD),
    served(version(1), name="Größe .x. 41 1 "),
)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench(CATALOG)
    async with made.client:
        yield made


async def test_a_prediction_says_who_answered_and_how_long_it_took(bench: Bench) -> None:
    """Version, request id and timings are on every answer."""
    response = await bench.client.post("/models/m/predict", json={"x": 2})
    assert (response.status_code, response.json()) == (200, [{"y": 4.0}])
    assert response.headers["X-Model-Version"] == "1"
    assert len(response.headers["X-Request-ID"]) == 32
    assert "model;dur=1.00" in response.headers["Server-Timing"]


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "ü"])
async def test_an_unusable_request_id_is_replaced(bench: Bench, given: str) -> None:
    """What can't be echoed safely isn't."""
    response = await bench.client.get("/healthz", headers={"X-Request-ID": given.encode()})  # type: ignore[dict-item]
    assert response.headers["X-Request-ID"] != given


@pytest.mark.parametrize("error", all_errors(), ids=lambda error: error.code)
async def test_every_error_is_rendered_by_its_class(
    bench: Bench, error: type[GatewayError]
) -> None:
    """Status, code and title come from the class, model and version from the request."""
    made = error.__new__(error)
    GatewayError.__init__(made, "What happened.")
    for name in ("violations", "differences"):
        setattr(made, name, ())
    made.requested_version = made.default_version = 1  # type: ignore[attr-defined]
    made.allow = "GET"  # type: ignore[attr-defined]
    made.load_failed = False  # type: ignore[attr-defined]
    bench.backend.error = made
    response = await bench.client.post("/models/m/predict", json={"x": 2})
    problem = response.json()
    assert response.status_code == problem["status"] == error.status
    assert (problem["code"], problem["title"]) == (error.code, error.title)
    assert (problem["model"], problem["version"]) == ("m", 1)
    assert problem["type"].endswith(error.code)
    assert problem["instance"] == "/models/m/predict"


async def test_what_nobody_expected_tells_nothing(bench: Bench) -> None:
    """A bug of ours is an internal_error without its text."""
    bench.backend.error = ZeroDivisionError("secret")
    response = await bench.client.post("/models/m/predict", json={"x": 2})
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert "secret" not in response.text
    assert "ZeroDivision" not in response.text


@pytest.mark.parametrize(("error", "status"), [(None, 200), (ZeroDivisionError(), 500)])
async def test_an_access_line_names_model_and_version_however_the_request_ends(
    bench: Bench, error: BaseException | None, status: int
) -> None:
    """Answered, or failed for a reason that nobody knows."""
    bench.backend.error = error
    await bench.client.post("/models/m/predict", json={"x": 2})
    bench.journal.flush()
    line = json.loads(b"".join(bench.lines))
    assert (line["status"], line["model"], line["version"]) == (status, "m", 1)
    assert line["rows"] == (1 if status == 200 else None)


@pytest.mark.parametrize("value", ["日本".encode(), b"\xff\xfe", b"1\xc2\xa0"])
@pytest.mark.parametrize("path", ["/models/m/predict", "/models", "/metrics", "/openapi.json", "/"])
async def test_no_header_s_bytes_are_a_failure(bench: Bench, path: str, value: bytes) -> None:
    """Whatever header has bytes beyond ASCII, in UTF-8 or not: no 5xx."""
    names = (
        "X-Model-Version", "serve_multiplexed_model_id", "X-Request-ID", "X-Request-Timeout",
        "Authorization", "Accept", "If-None-Match", "Content-Type", "Content-Encoding", "Cookie",
        "Content-Length", "Origin", "Range", "traceparent", "X-MLflow-Signature",
    )  # fmt: skip
    for name in names:
        method = "POST" if path.endswith("predict") else "GET"
        sent = [(name.encode(), value)]
        body = {"x": 1} if method == "POST" else None
        answer = await bench.client.request(method, path, json=body, headers=sent)
        assert answer.status_code < 500, (name, answer.text)


async def test_retry_after_is_whole_seconds(bench: Bench) -> None:
    """RFC 9110 wants an integer, and never zero."""
    bench.backend.error = ModelUnavailable("Later.", retry_after_s=0.2)
    response = await bench.client.post("/models/m/predict", json={"x": 2})
    assert response.headers["Retry-After"] == "1"


async def test_a_body_over_the_limit_is_refused(bench: Bench) -> None:
    """413, whether the length is declared or the body is streamed."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100

    headers = {"Content-Type": "application/json"}
    for content in (b" " * 2000, chunks()):
        response = await bench.client.post("/models/m/predict", content=content, headers=headers)
        assert (response.status_code, response.json()["code"]) == (413, "payload_too_large")
    assert bench.backend.calls == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": ""},
        {"Content-Type": "application/json", "Content-Encoding": "compress"},
    ],
)
async def test_a_body_in_another_form_is_refused(bench: Bench, headers: dict[str, str]) -> None:
    """415 for another media type, and for an encoding that nobody has."""
    response = await bench.client.post("/models/m/predict", content=b'{"x":1}', headers=headers)
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("limit", ["0", "1001", "abc", ""])
async def test_a_bad_query_is_told_as_one(bench: Bench, limit: str) -> None:
    """422 with the parameter's name: no signature has a part in it."""
    refused = await bench.client.get(f"/models/m/history?limit={limit}")
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_query")
    assert refused.json()["detail"].startswith("limit: Input should be")


async def test_operations_are_called_by_words_and_all_components_are_used(bench: Bench) -> None:
    """Generators name functions by the first, and linters warn of what nothing refers to."""
    text = (await bench.client.get("/openapi.json")).text
    document = json.loads(text)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", operation["operationId"]), path
    for kind, components in document["components"].items():
        for name in components if kind != "securitySchemes" else ():
            assert f'"#/components/{kind}/{name}"' in text


async def test_json_is_utf_8_whatever_its_parameters_say(bench: Bench) -> None:
    """RFC 8259 gives `charset` no meaning."""
    headers = {"Content-Type": "application/json; charset=utf-16"}
    response = await bench.client.post("/models/m/predict", content=b'{"x":1}', headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize("given", ["bytes=0-1", "bytes=999999-", "bytes=5-1,x", "nonsense"])
async def test_assets_are_sent_whole(bench: Bench, given: str) -> None:
    """A range is ignored, so that a bad one isn't answered outside of the envelope."""
    response = await bench.client.get("/docs/assets/favicon.svg", headers={"Range": given})
    assert response.status_code == 200


async def test_before_the_first_catalog_nothing_is_ready() -> None:
    """readyz and predictions are 503 until there is a catalog; health is not about that."""
    bench = Bench(None)
    bench.feed.registry = RegistryStatus(problem="The registry is away.")
    for method, path in (("GET", "/readyz"), ("GET", "/models"), ("GET", "/openapi.json")):
        response = await bench.client.request(method, path)
        assert (response.status_code, response.json()["code"]) == (503, "catalog_unavailable")
        assert response.headers["Retry-After"]
    assert (await bench.client.get("/readyz")).json()["registry_problem"]
    assert (await bench.client.get("/healthz")).status_code == 200


async def test_readiness_tells_the_registrys_silence(bench: Bench) -> None:
    """Ready means that a catalog is there, however long ago the registry answered."""
    ready = (await bench.client.get("/readyz")).json()
    assert (ready["models"], ready["registry_silent_for_s"]) == (3, 1.0)


async def test_the_list_of_models_tells_since_when_the_registry_is_silent(bench: Bench) -> None:
    """A moment while there is a problem, and nothing between two looks that went well."""
    assert (await bench.client.get("/models")).json()["registry"] == {
        "silent_since": None, "problem": None, "snapshot_problem": None,
    }  # fmt: skip
    bench.feed.registry = RegistryStatus(
        silent_for_s=90.0, problem="The registry is away.", snapshot_problem="The disk is full."
    )
    told = (await bench.client.get("/models")).json()["registry"]
    since = datetime.now(UTC) - datetime.fromisoformat(told["silent_since"])
    assert 90 <= since.total_seconds() < 95
    assert told["problem"] == "The registry is away."
    assert told["snapshot_problem"] == "The disk is full."
    assert (await bench.client.get("/readyz")).json()["snapshot_problem"] == "The disk is full."


async def test_any_model_name_is_routed_and_documented(bench: Bench) -> None:
    """Names with spaces, braces, percent signs and letters of any language have their own path."""
    listing = (await bench.client.get("/models")).json()["models"]
    document = (await bench.client.get("/openapi.json")).json()
    for model in listing:
        response = await bench.client.post(model["predict_url"], json={"x": 1})
        if "/" not in model["name"]:  # MLflow allows no slash in names
            assert response.status_code == 200, model["name"]
        assert model["predict_url"] in document["paths"]
    operations = [path["post"]["operationId"] for path in document["paths"].values()
                  if "post" in path]  # fmt: skip
    assert len(set(operations)) == len(operations)


async def test_the_document_is_valid_openapi(bench: Bench) -> None:
    """OpenAPI 3.1, for all models and for one."""
    OpenAPIV31SpecValidator((await bench.client.get("/openapi.json")).json()).validate()
    OpenAPIV31SpecValidator((await bench.client.get("/models/m/openapi.json")).json()).validate()
    assert (await bench.client.get("/models/nope/openapi.json")).status_code == 404


async def test_the_document_tells_of_bad_parameters(bench: Bench) -> None:
    """A query that is refused is a problem of ours, which the operation lists; where nothing can be
    refused so, nothing of FastAPI's own is left."""
    paths = (await bench.client.get("/openapi.json")).json()["paths"]
    refused = await bench.client.get("/models/m/history", params={"limit": "none"})
    assert refused.status_code == 422
    assert "422" in paths["/models/{name}/history"]["get"]["responses"]
    assert "422" not in paths["/models/{name}"]["get"]["responses"]


async def test_the_document_names_the_routes_of_other_protocols(bench: Bench) -> None:
    """Who reads it finds where OpenAI's clients, MLflow's and others go."""
    told = (await bench.client.get("/openapi.json")).json()["info"]["description"]
    posted = [path for path, _ in DIALECTS if "{selector}" not in path]
    assert all(f"`{path}`" in told or f"POST {path}`" in told for path in [*posted, *OPENAI_PATHS])


async def test_the_documents_tag_changes_only_with_the_catalog(bench: Bench) -> None:
    """Equal content has an equal ETag, across generations; other content another."""
    first = (await bench.client.get("/openapi.json")).headers["ETag"]
    assert (
        await bench.client.get("/openapi.json", headers={"If-None-Match": first})
    ).status_code == 304
    bench.feed.catalog = CATALOG.model_copy(update={"generation": 2})
    assert (await bench.client.get("/openapi.json")).headers["ETag"] == first
    bench.feed.catalog = catalog(served(version(1)), generation=3)
    assert (await bench.client.get("/openapi.json")).headers["ETag"] != first


async def test_a_models_page_shows_versions_with_their_compatibility(bench: Bench) -> None:
    """Each version says whether it keeps the contract, and why not."""
    detail: dict[str, Any] = (await bench.client.get("/models/m")).json()
    by_number = {v["version"]: v for v in detail["version_details"]}
    assert by_number[1]["compatible"] is True
    assert by_number[1]["is_default"] is True
    assert by_number[2]["compatible"] is False
    assert by_number[2]["differences"]
    assert detail["request_schema"]


async def test_the_docs_page_asks_nobody_else(bench: Bench) -> None:
    """Every address on the page is the gateway's own."""
    page = (await bench.client.get("/docs")).text
    assert "http" not in page.replace("http://www.w3.org", "")
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.svg"):
        assert f"/docs/assets/{asset}" in page
        assert (await bench.client.get(f"/docs/assets/{asset}")).status_code == 200
