"""What the HTTP interface answers, the same on either backend: good requests and bad ones."""

from __future__ import annotations

import asyncio
import base64
import itertools
from typing import Any

import httpx
import pytest

from gateway.http.predict.path import predict_path
from tests.support.contract_models import DESCRIBED, ODD_COLUMN_NAMES, ODD_COLUMNS, ODD_NAME, TYPED

JSON = {"Content-Type": "application/json"}


async def predict(
    client: httpx.AsyncClient, name: str, body: Any, **headers: str
) -> httpx.Response:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return await client.post(predict_path(name), json=body, headers=named)


async def test_every_type_goes_through_a_model_and_back(gateway_client: httpx.AsyncClient) -> None:
    """A value of every MLflow type reaches the model as its type and comes back as it went."""
    row = {
        "boolean": True,
        "integer": 2147483647,
        "long": 9007199254740993,
        "float": 1.5,
        "double": 0.1,
        "string": "grün",
        "binary": base64.b64encode(b"\x00\xff").decode(),
        "datetime": "2024-02-29T12:30:00.25",
        "array": [1, 2],
        "object": {"id": 3, "tags": ["a"], "by_name": {"x": 1.0}},
        "map": {"k": "v"},
    }
    response = await predict(gateway_client, TYPED, row)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert len(answer) == 1
    assert {key: answer[0][key] for key in row} == row


async def test_optional_columns_may_lack_in_some_rows(gateway_client: httpx.AsyncClient) -> None:
    """Rows with, without and with a null optional column are all answered, in order."""
    rows = [{"text": "a", "count": 1}, {"text": "b"}, {"text": "c", "count": None}]
    whole = await predict(gateway_client, DESCRIBED, [*rows, {"text": "d", "count": 4}])
    assert whole.status_code == 200, whole.text
    assert [row["described"] for row in whole.json()] == [">a|1", ">b|-", ">c|-", ">d|4"]
    for row, expected in zip(rows, whole.json(), strict=False):
        assert (await predict(gateway_client, DESCRIBED, row)).json() == [expected]


async def test_params_are_defaulted_passed_and_refused(gateway_client: httpx.AsyncClient) -> None:
    """Absent params take the signature's default, given ones arrive, unknown ones are refused."""
    body = {"inputs": {"text": "a"}, "params": {"times": 3}}
    assert (await predict(gateway_client, DESCRIBED, body)).json() == [{"described": ">>>a|-"}]
    response = await predict(gateway_client, DESCRIBED, {**body, "params": {"time": 3}})
    assert response.status_code == 422
    assert [e["pointer"] for e in response.json()["errors"]] == ["/params/time"]


@pytest.mark.parametrize(
    ("name", "body", "answer"),
    [
        (ODD_NAME, {"x": 1}, [{"x": 1.0}]),
        (ODD_COLUMNS, dict.fromkeys(ODD_COLUMN_NAMES, 1.5), [dict.fromkeys(ODD_COLUMN_NAMES, 1.5)]),
        ("column inputs", {"inputs": "a"}, [{"inputs": "a"}]),
        ("column inputs", [{"inputs": "a"}, {"inputs": "b"}], [{"inputs": "a"}, {"inputs": "b"}]),
        ("tensor", [[1, 2], [3, 4]], [10.0]),
        ("tensor", [[[1, 2], [3, 4]], [[0, 0], [0, 1]]], [10.0, 1.0]),
        ("named tensors", {"a": [1, 2], "b": 3}, [6.0]),
        ("named tensors", {"inputs": [{"a": [1, 2], "b": 3}]}, [6.0]),
        ("bare array", [1, 2], [[1.0, 2.0]]),
        ("bare array", [[1], [2, 3]], [[1.0], [2.0, 3.0]]),
        ("hinted text", "a", ["A"]),
        ("hinted text", ["a", "b"], ["A", "B"]),
        ("hinted text", {"inputs": ["a"]}, ["A"]),
        ("hinted orders", {"item": "tea", "count": 2}, ["2 x tea"]),
        ("hinted orders", [{"item": "tea", "count": 2, "note": "!"}], ["2 x tea!"]),
        ("not finite", [{"x": 1}, {"x": 1}, {"x": 1}], [{"x": None}, {"x": None}, {"x": 1.0}]),
        (TYPED, [], []),
        ("tensor", [], []),
        ("hinted text", {"inputs": []}, []),
    ],
)
async def test_every_form_of_body_is_answered(
    gateway_client: httpx.AsyncClient, name: str, body: Any, answer: Any
) -> None:
    """Records, lists, bare values and the wrapper, for named, unnamed, tensor and hinted models."""
    response = await predict(gateway_client, name, body)
    assert response.status_code == 200, response.text
    assert response.json() == answer


async def test_an_answer_of_another_length_than_the_rows(
    gateway_client: httpx.AsyncClient,
) -> None:
    """A model that is asked by one request alone answers with as many rows as there are."""
    for body, want in (({"x": 3.0}, 3), ([{"x": 1.0}, {"x": 2.0}], 1), ({"x": 0.0}, 0)):
        response = await gateway_client.post("/models/forecast/predict", json=body)
        assert response.status_code == 200, response.text
        assert response.json() == [{"x": float(i)} for i in range(want)]


@pytest.mark.parametrize(
    ("path", "content", "headers", "status", "code"),
    [
        ("/models/described/predict", b"", JSON, 400, "malformed_json"),
        ("/models/described/predict", b"{", JSON, 400, "malformed_json"),
        ("/models/described/predict", b'{"text": NaN}', JSON, 400, "malformed_json"),
        ("/models/described/predict", b'{"text": "\xff"}', JSON, 400, "malformed_json"),
        ("/models/described/predict", b"[" * 100_000, JSON, 400, "malformed_json"),
        ("/models/described/predict", b"[" * 900 + b"]" * 900, JSON, 400, "malformed_json"),
        ("/models/described/predict", b"{}", {}, 415, "unsupported_media_type"),
        (
            "/models/described/predict", b"text=a",
            {"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type",
        ),
        ("/models/described/predict", b"{}", JSON, 422, "invalid_input"),
        ("/models/described/predict", b"null", JSON, 422, "invalid_input"),
        ("/models/described/predict", b'"text"', JSON, 422, "invalid_input"),
        ("/models/described/predict", b'{"text": null}', JSON, 422, "invalid_input"),
        ("/models/described/predict", b'{"text": "a", "more": 1}', JSON, 422, "invalid_input"),
        ("/models/described/predict", b'{"text": 1}', JSON, 422, "invalid_input"),
        ("/models/described/predict", b'{"text": "a", "count": "1"}', JSON, 422, "invalid_input"),
        ("/models/described/predict", b'{"text": "a", "count": true}', JSON, 422, "invalid_input"),
        ("/models/described/predict", b'{"text": "a", "count": 1.5}', JSON, 422, "invalid_input"),
        ("/models/nope/predict", b"{}", JSON, 404, "model_not_found"),
        ("/models/nope", None, {}, 404, "model_not_found"),
        ("/nope", None, {}, 404, "route_not_found"),
        ("/models/described/predict", None, {}, 405, "method_not_allowed"),
        ("/models/failing/predict", b'{"x": 1}', JSON, 500, "model_failed"),
        ("/models/wrong type/predict", b'{"x": 1}', JSON, 500, "invalid_model_output"),
        ("/models/no form/predict", b'{"x": 1}', JSON, 500, "invalid_model_output"),
        ("/models/unloadable/predict", b'{"x": 1}', JSON, 503, "model_unavailable"),
        ("/models/without signature/predict", b'{"x": 1}', JSON, 409, "model_unservable"),
    ],
)  # fmt: skip
async def test_what_goes_wrong_has_its_status_and_code(
    gateway_client: httpx.AsyncClient,
    path: str,
    content: bytes | None,
    headers: dict[str, str],
    status: int,
    code: str,
) -> None:
    """Each fault is answered in the envelope with its status and code, and tells no secret."""
    if content is None:
        response = await gateway_client.get(path)
    else:
        response = await gateway_client.post(path, content=content, headers=headers)
    assert response.headers["content-type"] == "application/problem+json", response.text
    problem = response.json()
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, code)
    if path == "/models/no form/predict":
        assert (
            problem["detail"]
            == "The model answered an object of the type object, which has no JSON form."
        )
    assert problem["request_id"] == response.headers["X-Request-ID"]
    # Of a load the class of what was raised is told; of a request, nothing.
    hidden = () if code == "model_unavailable" else ("RuntimeError",)
    for secret in ("secret", "Traceback", ".py", *hidden):
        assert secret not in response.text
    if status == 503:
        assert int(response.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(
    ("headers", "status", "version"),
    [
        ({}, 200, "1"),
        ({"X_Model_Version": "1"}, 200, "1"),
        ({"X_Model_Version": "2"}, 200, "2"),
        ({"X_Model_Version": "second"}, 200, "2"),
        ({"X_Model_Version": "champion"}, 200, "1"),
        ({"X_Model_Version": "日本".encode()}, 200, "1"),
        ({"X_Model_Version": "größe".encode("latin-1")}, 200, "1"),
    ],
)
async def test_headers_pick_the_version(
    gateway_client: httpx.AsyncClient, headers: dict[str, Any], status: int, version: str
) -> None:
    """Numbers and aliases name versions, and the answer says which one it was."""
    response = await predict(gateway_client, "versions", {"x": 1}, **headers)
    assert (response.status_code, response.headers["X-Model-Version"]) == (status, version)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"X-Model-Version": "3"}, 409, "signature_mismatch"),
        ({"X-Model-Version": "4"}, 409, "model_unservable"),
        ({"X-Model-Version": "latest"}, 409, "model_unservable"),
        ({"X-Model-Version": "5"}, 404, "version_not_found"),
        ({"X-Model-Version": "0"}, 404, "version_not_found"),
        ({"X-Model-Version": "-1"}, 404, "version_not_found"),
        ({"X-Model-Version": "no such alias"}, 404, "version_not_found"),
        ({"X-Model-Version": "9" * 40}, 404, "version_not_found"),
        (
            {"X-Model-Version": "1", "serve_multiplexed_model_id": "2"},
            400,
            "conflicting_version",
        ),
    ],
)
async def test_versions_that_cannot_answer_are_told_apart(
    gateway_client: httpx.AsyncClient, headers: dict[str, str], status: int, code: str
) -> None:
    """A version that breaks, can't be served or isn't there has a status of its own."""
    response = await gateway_client.post(predict_path("versions"), json={"x": 1}, headers=headers)
    assert (response.status_code, response.json()["code"]) == (status, code)


async def _until_started(client: httpx.AsyncClient, name: str) -> tuple[int, httpx.Response]:
    """How often a model said that it is starting, and its first other answer."""
    async with asyncio.timeout(60):
        for refused in itertools.count():
            response = await predict(client, name, {"x": 1})
            if response.status_code != 503:
                return refused, response
            assert response.json()["code"] == "model_unavailable"
            assert int(response.headers["Retry-After"]) >= 1
    raise AssertionError(name)


async def test_a_model_that_takes_long_to_start_says_so_in_time(
    gateway_client: httpx.AsyncClient,
) -> None:
    """Within the deadline a caller hears that the model is starting; later it answers."""
    refused, response = await _until_started(gateway_client, "slow to load")
    assert refused >= 1
    assert (response.status_code, response.json()) == (200, [{"x": 1.0}])


async def test_a_model_that_takes_long_to_answer_is_given_up(
    gateway_client: httpx.AsyncClient,
) -> None:
    """Past the model's own deadline, a tag, the answer is 504."""
    _, response = await _until_started(gateway_client, "slow")
    assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")


async def test_both_headers_with_one_value_agree(gateway_client: httpx.AsyncClient) -> None:
    """Saying the same twice is no conflict."""
    response = await gateway_client.post(
        predict_path("versions"),
        json={"x": 1},
        headers={"X-Model-Version": "2", "serve_multiplexed_model_id": "2"},
    )
    assert (response.status_code, response.headers["X-Model-Version"]) == (200, "2")


async def test_a_version_with_more_fields_takes_them_when_it_is_named(
    gateway_client: httpx.AsyncClient,
) -> None:
    """What version 2 adds is unknown to the contract, and fine where version 2 is asked for."""
    body = {"x": 1, "y": "new"}
    assert (await predict(gateway_client, "versions", body)).status_code == 422
    named = await predict(gateway_client, "versions", body, X_Model_Version="2")
    assert (named.status_code, named.json()) == (200, [{"x": 1.0}])


async def test_the_callers_request_id_comes_back(gateway_client: httpx.AsyncClient) -> None:
    """A sane id is kept, once, on answers and on errors."""
    for body in ({"x": 1}, {"y": 1}):
        response = await predict(gateway_client, "versions", body, X_Request_ID="my-id-1")
        assert response.headers.get_list("X-Request-ID") == ["my-id-1"]


async def test_pointers_lead_to_what_is_wrong(gateway_client: httpx.AsyncClient) -> None:
    """Each violation's pointer is a path into the body that was sent."""
    response = await predict(
        gateway_client, DESCRIBED, {"inputs": [{"text": "a"}, {"count": "x", "no/such": 1}]}
    )
    assert {e["pointer"] for e in response.json()["errors"]} == {
        "/inputs/1/text", "/inputs/1/count", "/inputs/1/no~1such",
    }  # fmt: skip


async def test_what_a_type_hint_refuses_is_told_by_its_place(
    gateway_client: httpx.AsyncClient,
) -> None:
    """The model's own class is asked, in its process, and the caller is told where it refuses."""
    rows = [{"item": "tea", "count": 2}, {"item": "mate"}]
    response = await predict(gateway_client, "hinted orders", {"inputs": rows})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_input")
    assert response.json()["errors"] == [
        {"pointer": "/inputs/1/count", "message": "Required, and missing."}
    ]


async def test_unservable_models_are_listed_with_their_reason(
    gateway_client: httpx.AsyncClient,
) -> None:
    """A model without signature says how to add one, and all the others are there."""
    listing = (await gateway_client.get("/models")).json()["models"]
    by_name = {model["name"]: model for model in listing}
    assert by_name["without signature"]["status"] == "unservable"
    assert "signature" in by_name["without signature"]["reason"]
    assert by_name[TYPED]["status"] == "ready"


async def test_a_model_that_cannot_be_loaded_is_listed_with_its_reason(
    gateway_client: httpx.AsyncClient,
) -> None:
    """A version whose load failed says so in the list, and nothing of what the error said."""
    assert (await predict(gateway_client, "unloadable", {"x": 1})).status_code == 503
    detail = (await gateway_client.get("/models/unloadable")).json()
    assert detail["status"] == "unservable"
    assert "can't be loaded" in detail["reason"]
    assert "can't be loaded" in detail["version_details"][0]["reason"]
    assert not detail["version_details"][0]["servable"]
    assert "secret" not in str(detail)
