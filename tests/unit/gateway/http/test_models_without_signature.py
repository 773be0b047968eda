"""What the HTTP interface says of models that have no signature."""

from __future__ import annotations

import datetime
import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import orjson
import pyarrow as pa
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


CALLS: list[Call] = []


async def _answer(call: Call) -> CallResult:
    CALLS.append(call)
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


JSON, CSV, COLUMNS = "application/json", "text/csv", "application/vnd.modelmux-columns+json"
ARROW = "application/vnd.apache.arrow.stream"


def _arrow() -> bytes:
    sink = io.BytesIO()
    table = pa.table({"a": [1], "at": [datetime.datetime(2024, 1, 2)]})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _tensor(**more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "x", **more}]}


@pytest.mark.parametrize(
    ("path", "body", "media_type", "layout", "given"),
    [
        ("/models/untyped/invocations",
         {"dataframe_split": {"columns": ["a", "b"], "data": [[1, "x"]]}}, JSON,
         "records", [{"a": 1, "b": "x"}]),
        ("/models/untyped/invocations", {"dataframe_records": [{"a": 1}, {"a": 2}]}, JSON,
         "records", [{"a": 1}, {"a": 2}]),
        ("/models/untyped/invocations", {"inputs": [[1, 2], [3, 4]]}, JSON,
         "tensor", [[1, 2], [3, 4]]),
        ("/models/untyped/invocations", {"instances": ["a", "b"]}, JSON, "values", ["a", "b"]),
        ("/models/untyped/invocations", {"prompt": "hello"}, JSON,
         "records", [{"prompt": "hello"}]),
        ("/models/untyped/invocations", b"a,b\n1,x\n", CSV, "records", [{"a": 1, "b": "x"}]),
        ("/models/untyped/predict", b"a\n1\n", CSV, "records", [{"a": 1}]),
        ("/models/untyped/predict", {"columns": {"a": [1], "b": [None]}}, COLUMNS,
         "records", [{"a": 1, "b": None}]),
        ("/models/untyped/predict", _arrow(), ARROW,
         "records", [{"a": 1, "at": "2024-01-02T00:00:00"}]),
        ("/v2/models/untyped/infer", _tensor(datatype="FP64", shape=[2, 2], data=[1, 2, 3, 4]),
         JSON, "tensor", [[1.0, 2.0], [3.0, 4.0]]),
        ("/v2/models/untyped/infer", _tensor(datatype="BYTES", shape=[1], data=['{"a": 1}']),
         JSON, "records", [{"a": 1}]),
    ],
)  # fmt: skip
async def test_every_form_reaches_it_as_its_json_does(
    client: httpx.AsyncClient, path: str, body: Any, media_type: str, layout: str, given: Any
) -> None:
    """Tables are records, with the columns' names, and lists are what the typed route makes of
    them."""
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    CALLS.clear()
    await client.post(path, content=content, headers={"Content-Type": media_type})
    (call,) = CALLS
    (column,) = call.frame.columns
    column = column.tolist() if isinstance(column, np.ndarray) else column
    assert (call.frame.layout, column) == (layout, given)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/models/untyped/invocations", {"inputs": {"a": [1]}}, 400),
        ("/models/untyped/invocations", {"instances": [{"a": 1}]}, 400),
        ("/models/untyped/invocations", {"inputs": "text"}, 400),
        ("/models/untyped/predict", {"columns": {"a": [1], "b": [1, 2]}}, 422),
        ("/models/untyped/predict", {"columns": {}}, 422),
        ("/models/untyped/predict", {"columns": {"a": [1]}, "params": {"k": 1}}, 422),
    ],
)
async def test_what_mlflow_hands_over_in_another_form_is_refused(
    client: httpx.AsyncClient, path: str, body: Any, status: int
) -> None:
    """A dict of arrays, or an array without dimensions; and no table."""
    media_type = COLUMNS if path.endswith("predict") else JSON
    answer = await client.post(
        path, content=orjson.dumps(body), headers={"Content-Type": media_type}
    )
    assert answer.status_code == status, answer.text
    assert answer.json()["errors"]
