"""What the HTTP interface says of models that have no signature."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import orjson
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.catalog import UNTYPED_SIGNATURE, ModelVersion, ServedModel
from gateway.contract import Output
from gateway.http.app import create_app
from gateway.http.predict.body import HttpLimits
from gateway.ports import Call, CallResult
from gateway.prediction import PredictionService
from tests.support.catalogs import PLAIN, catalog, served, version
from tests.support.static_feed import StaticFeed


def _unsigned(name: str, text: str) -> ServedModel:
    one = version(1, text, unsigned="The model has no signature.")
    return served(one, name=name)


async def _answer(call: Call) -> CallResult:
    (column,) = call.frame.columns
    output: Output = ("values", [{"given": list(column)}, "and more"])
    return CallResult(output=output)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    feed = StaticFeed(
        catalog(_unsigned("untyped", UNTYPED_SIGNATURE), _unsigned("inferred", PLAIN), served(
            version(1), name="signed"
        ))
    )  # fmt: skip
    service = PredictionService(feed=feed, submit=_answer, default_timeout_s=5)
    app = create_app(service=service, feed=feed, limits=HttpLimits(max_body_bytes=1000))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gw") as made:
        yield made


WORDS = {"untyped": "served without types", "inferred": "inferred from its input example"}


async def test_it_is_said_wherever_a_model_is_described(client: httpx.AsyncClient) -> None:
    """In the list, in the model's own description, in OpenAPI and on the page."""
    listed = (await client.get("/models")).json()["models"]
    types_from = {model["name"]: model["types_from"] for model in listed}
    assert types_from == {"untyped": "none", "inferred": "input example", "signed": "signature"}
    for name in types_from:
        detail = (await client.get(f"/models/{name}")).json()
        assert detail["version_details"][0]["types_from"] == types_from[name]
        document = (await client.get(f"/models/{name}/openapi.json")).json()
        OpenAPIV31SpecValidator(document).validate()
        page = (await client.get(f"/catalog/{name}")).text
        for other, words in WORDS.items():
            assert (words in orjson.dumps(document).decode()) == (name == other)
            assert (words in page) == (name == other)


@pytest.mark.parametrize("body", [{"any": ["thing"]}, [1, 2], "text", {"inputs": [[1], [2, 3]]}])
async def test_anything_is_asked_and_answered(client: httpx.AsyncClient, body: object) -> None:
    """As it was sent, and as it came."""
    response = await client.post("/models/untyped/predict", json=body)
    assert response.status_code == 200, response.text
    given = body["inputs"] if isinstance(body, dict) and "inputs" in body else body
    assert response.json() == [{"given": given if isinstance(given, list) else [given]}, "and more"]


def test_a_version_that_cannot_be_served_has_no_note() -> None:
    """Its reason says all there is to say."""
    one = ModelVersion(number=1, fingerprint="f", problem="The model has no signature.",
                       unsigned="The model has no signature.")  # fmt: skip
    assert one.typing_note is None
