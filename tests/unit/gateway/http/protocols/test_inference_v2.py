"""Open Inference Protocol v2 by REST, over models that answer what they were given."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from mlflow.types import ColSpec, DataType
from mlflow.types.schema import AnyType, Array

from gateway.errors import ModelUnavailable
from tests.support.echo_gateway import EchoGateway, signature
from tests.support.v2_tensors import (
    ROWS,
    TENSOR,
    TEXT,
    TYPES,
    UNNAMED,
    answered,
    infer,
    of_signature,
    pointers,
    tensor,
    with_,
)


@pytest.fixture
def gateway() -> EchoGateway:
    return EchoGateway(TYPES)


@pytest.fixture
async def client(gateway: EchoGateway) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.client() as client:
        yield client


async def test_every_type_goes_in_and_out_as_a_tensor(client: httpx.AsyncClient) -> None:
    """A column of each type arrives as its type, sent as [N] or [N, 1], and is answered as [N]."""
    outputs = await answered(client, ROWS)
    assert {name: (o["datatype"], o["shape"], o["data"]) for name, o in outputs.items()} == {
        "b": ("BOOL", [2], [True, False]),
        "i": ("INT32", [2], [1, -2]),
        "l": ("INT64", [2], [2**53 + 1, 0]),
        "f": ("FP32", [2], [0.1, 3.0]),
        "d": ("FP64", [2], [0.1, 1e300]),
        "s": ("BYTES", [2], ["grün", ""]),
        "bin": ("BYTES", [2], ["AP8=", ""]),
        "at": ("BYTES", [2], ["2024-02-29T12:30:00.250000000".rstrip("0"), "2024-01-01T00:00:00"]),
        "list": ("BYTES", [2], ["[1.0,2.5]", "[]"]),
    }
    kinds = {name: o.get("parameters", {}).get("content_type") for name, o in outputs.items()}
    assert kinds == {
        "b": None, "i": None, "l": None, "f": None, "d": None,
        "s": "str", "bin": "base64", "at": "datetime", "list": "pd_json",
    }  # fmt: skip


async def test_a_byte_order_mark_is_overlooked(client: httpx.AsyncClient) -> None:
    """At the beginning of the JSON, which is all that some writers of UTF-8 put there."""
    body = b"\xef\xbb\xbf" + orjson.dumps({"inputs": ROWS})
    for headers in ({}, {"Inference-Header-Content-Length": str(len(body))}):
        response = await client.post("/v2/models/m/infer", content=body, headers=headers)
        assert response.status_code == 200, response.text


async def test_an_answer_names_model_version_and_request(client: httpx.AsyncClient) -> None:
    """The answer has the model's name, the version that answered and the request's own id."""
    response = await infer(client, ROWS, id="42")
    answer = response.json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("m", "1", "42")
    assert "id" not in (await infer(client, ROWS)).json()


async def test_what_is_null_is_null_where_it_may_be(client: httpx.AsyncClient) -> None:
    """Rows with and without an optional integer are answered in order; null is NaN in fractions."""
    more = [
        *with_(tensor("d", "FP64", [2], [None, 1.0])),
        tensor("maybe", "INT32", [2], [None, 7]),
        tensor("note", "BYTES", [2], ["x", None]),
    ]
    outputs = await answered(client, more)
    assert outputs["maybe"]["data"] == [None, 7]
    assert outputs["note"]["data"] == ["x", None]
    assert outputs["d"]["data"] == [None, 1.0]
    assert await pointers(client, with_(tensor("l", "INT64", [2], [1, None]))) == {
        "/inputs/2/data/1"
    }


@pytest.mark.parametrize(
    ("changed", "pointer"),
    [
        (tensor("l", "INT64", [2], [1.5, 1]), "/inputs/2/data/0"),
        (tensor("i", "INT64", [2], [1, 2**31]), "/inputs/1/data/1"),
        (tensor("i", "INT8", [2], [1, 128]), "/inputs/1/data/1"),
        (tensor("i", "INT32", [2], [1, "2"]), "/inputs/1/data/1"),
        (tensor("i", "INT32", [2], [True, 2]), "/inputs/1/data/0"),
        (tensor("f", "FP64", [2], [1e39, 1]), "/inputs/3/data/0"),
        (tensor("b", "BOOL", [2], [1, 2]), "/inputs/0/data/1"),
        (tensor("s", "BYTES", [2], ["a", 1]), "/inputs/5/data/1"),
        (tensor("at", "BYTES", [2], ["a", "2024-01-01"]), "/inputs/7/data/0"),
        (tensor("bin", "BYTES", [2], ["AA==", "?"]), "/inputs/6/data/1"),
        (tensor("list", "BYTES", [2], ["[1]", "{"]), "/inputs/8/data/1"),
        (tensor("list", "BYTES", [2], ["[1]", '["a"]']), "/inputs/8/data/1/0"),
        (tensor("d", "FP64", [3], [1, 2, 3]), "/inputs/4/shape/0"),
        (tensor("d", "FP64", [2], [1]), "/inputs/4/data"),
        (tensor("d", "FP64", [2], 1), "/inputs/4/data"),
        (tensor("d", "FP64", [2, 2], [[1, 2], [3]]), "/inputs/4/data"),
        (tensor("d", "FP64", [-2], [1, 2]), "/inputs/4/shape"),
        (tensor("d", "FP64", [2, 2], [1, 2, 3, 4]), "/inputs/4/shape"),
        (tensor("d", "FP65", [2], [1, 2]), "/inputs/4/datatype"),
        (tensor("s", "BYTES", [2], ["a", "b"], content_type="hf"),
         "/inputs/5/parameters/content_type"),
    ],
)  # fmt: skip
async def test_what_does_not_fit_is_refused_with_its_place(
    client: httpx.AsyncClient, changed: Any, pointer: str
) -> None:
    """An element, a shape or a type that doesn't fit is 422 with a pointer to it."""
    assert await pointers(client, with_(changed)) == {pointer}


async def test_missing_unknown_and_repeated_inputs_are_refused(client: httpx.AsyncClient) -> None:
    """Inputs that are missing are named, unknown and repeated ones pointed at, all at once."""
    wrong = [*ROWS[1:], tensor("zz", "FP64", [2], [1, 2]), ROWS[1]]
    response = await infer(client, wrong)
    assert {(e["pointer"], e["message"]) for e in response.json()["errors"]} == {
        ("/inputs", "Required, and missing: 'b'."),
        ("/inputs/8/name", "The model has no input of that name."),
        ("/inputs/9/name", "There is a tensor of that name already."),
    }


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"inputs": {}}', b'{"inputs": [1]}'])
async def test_a_body_of_another_form_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    """What is no request of the protocol is 400 or 422, with `error` as its clients read it."""
    response = await client.post("/v2/models/m/infer", content=body)
    assert response.status_code in (400, 422)
    problem = response.json()
    assert isinstance(problem["error"], str)
    assert problem["error"].startswith(problem["detail"])


@pytest.mark.parametrize(
    ("changed", "name", "expected"),
    [
        (tensor("s", "BYTES", [2], ["YQ==", "Yg=="], content_type="base64"), "s", ["a", "b"]),
        (tensor("s", "BYTES", [2], ['"a"', '"b"'], content_type="pd_json"), "s", ["a", "b"]),
        (tensor("bin", "BYTES", [2], ["a", "b"], content_type="str"), "bin", ["YQ==", "Yg=="]),
        (tensor("bin", "BYTES", [2], ["AP8=", ""], content_type="base64"), "bin", ["AP8=", ""]),
        (tensor("at", "BYTES", [2], ["2024-01-01", "2024-01-02"], content_type="datetime"), "at",
         ["2024-01-01T00:00:00", "2024-01-02T00:00:00"]),
        (tensor("d", "FP64", [2], [1, 2], content_type="np"), "d", [1.0, 2.0]),
        (tensor("d", "INT32", [2], [1, 2]), "d", [1.0, 2.0]),
        (tensor("i", "FP64", [2], [1, 2]), "i", [1, 2]),
        (tensor("list", "FP64", [2, 2], [1, 2, 3, 4]), "list", ["[1.0,2.0]", "[3.0,4.0]"]),
        (tensor("list", "FP32", [2, 1], [[1], [2]]), "list", ["[1.0]", "[2.0]"]),
    ],
)  # fmt: skip
async def test_content_types_are_honoured_and_not_needed(
    client: httpx.AsyncClient, changed: Any, name: str, expected: Any
) -> None:
    """MLServer's content types say what elements mean; numbers of other types are cast."""
    outputs = await answered(client, with_(changed), parameters={"content_type": "pd"})
    assert outputs[name]["data"] == expected


async def test_outputs_are_those_asked_for_in_that_order(client: httpx.AsyncClient) -> None:
    """Only the outputs that are named come, as named; an unknown one is refused."""
    response = await infer(client, ROWS, outputs=[{"name": "s"}, {"name": "b"}])
    assert [each["name"] for each in response.json()["outputs"]] == ["s", "b"]
    assert await pointers(client, ROWS, outputs=[{"name": "b"}, {"name": "x"}]) == {
        "/outputs/1/name"
    }
    assert await pointers(
        client, ROWS, outputs=[{"name": "b", "parameters": {"classification": 2}}]
    ) == {"/outputs/0/parameters/classification"}


async def test_parameters_are_the_models_params(
    gateway: EchoGateway, client: httpx.AsyncClient
) -> None:
    """What isn't the protocol's is a param, checked by the signature, and refused where unknown."""
    parameters = {"times": 3, "weights": [0.5], "binary_data_output": False, "priority": 1}
    await answered(client, ROWS, parameters=parameters)
    assert gateway.backend.calls[-1].params == {"times": 3, "weights": [0.5]}
    assert await pointers(client, ROWS, parameters={"times": "x", "sequence_id": 1}) == {
        "/parameters/times", "/parameters/sequence_id",
    }  # fmt: skip


async def test_tensors_keep_their_dimensions() -> None:
    """A tensor signature takes its shape under any name, and answers it; other shapes are 422."""
    values = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    for data in (values.tolist(), values.ravel().tolist()):
        (output,) = await of_signature(TENSOR, [tensor("any", "FP32", [2, 2, 3], data)])
        assert (output["name"], output["shape"]) == ("output-0", [2, 2, 3])
        assert output["data"] == values.ravel().tolist()
    async with EchoGateway(TENSOR).client() as client:
        assert await pointers(client, [tensor("any", "FP32", [2, 6], [0.0] * 12)]) == {
            "/inputs/0/shape"
        }


async def test_columns_without_names_come_by_number_or_as_a_matrix() -> None:
    """Unnamed columns are input-0, input-1 in any order, a DataFrame's 0 and 1, or one matrix."""
    for inputs in (
        [tensor("input-1", "FP64", [2], [3, 4]), tensor("input-0", "FP64", [2], [1, 2])],
        [tensor("0", "FP64", [2, 1], [1, 2]), tensor("1", "FP64", [2, 1], [3, 4])],
        [tensor("x", "FP64", [2, 2], [[1, 3], [2, 4]])],
    ):
        outputs = await of_signature(UNNAMED, inputs)
        assert [(o["name"], o["data"]) for o in outputs] == [
            ("output-0", [1, 2]), ("output-1", [3, 4]),
        ]  # fmt: skip


async def test_no_rows_are_an_answer_without_rows(client: httpx.AsyncClient) -> None:
    """Tensors of no rows are answered with tensors of no rows, and the model isn't called."""
    empty = [tensor(t["name"], t["datatype"], [0], []) for t in ROWS]
    outputs = await answered(client, empty)
    assert outputs["d"] == {"name": "d", "datatype": "FP64", "shape": [0], "data": []}
    (output,) = await of_signature(TENSOR, [tensor("x", "FP32", [0, 2, 3], [])])
    assert (output["shape"], output["data"]) == ([0, 2, 3], [])


async def test_undeclared_answers_are_typed_by_what_is_in_them() -> None:
    """Without an output signature tensors are of the types that the values have."""
    text = signature(
        [ColSpec("double", "d"), ColSpec("string", "s"), ColSpec(Array(DataType.double), "v")], []
    )
    outputs = await of_signature(
        text,
        [
            tensor("d", "FP64", [2], [1, 2]),
            tensor("s", "BYTES", [2], ["a", "b"]),
            tensor("v", "FP64", [2, 2], [1, 2, 3, 4]),
        ],
    )
    assert [(o["name"], o["datatype"], o["shape"]) for o in outputs] == [
        ("d", "FP64", [2]), ("s", "BYTES", [2]), ("v", "FP64", [2, 2]),
    ]  # fmt: skip


async def test_a_table_where_anything_is_declared_is_one_output() -> None:
    """Its rows are JSON in the output that the metadata name, as the typed route has them."""
    text = signature([ColSpec("double", "d"), ColSpec("string", "s")], [ColSpec(AnyType())])
    asked = [tensor("d", "FP64", [2], [1, 2]), tensor("s", "BYTES", [2], ["a", "b"])]
    (output,) = await of_signature(text, asked)
    assert (output["name"], output["shape"]) == ("output-0", [2])
    assert list(map(orjson.loads, output["data"])) == [{"d": 1, "s": "a"}, {"d": 2, "s": "b"}]


async def test_metadata_are_of_the_signature(client: httpx.AsyncClient) -> None:
    """The metadata have a tensor for each column, with its datatype, shape and content type."""
    metadata = (await client.get("/v2/models/m")).json()
    assert (metadata["name"], metadata["versions"]) == ("m", ["1"])
    assert metadata["inputs"] == metadata["outputs"]
    said = {t["name"]: (t["datatype"], t["shape"]) for t in metadata["inputs"]}
    assert said["b"] == ("BOOL", [-1])
    assert said["list"] == ("BYTES", [-1])
    async with EchoGateway(TENSOR).client() as other:
        (only,) = (await other.get("/v2/models/m")).json()["inputs"]
    assert only == {"name": "input-0", "datatype": "FP32", "shape": [-1, 2, 3]}


async def test_versions_are_in_the_path_by_number_and_alias() -> None:
    """A number, an alias and `latest` name a version for infer, metadata and readiness."""
    gateway = EchoGateway(TEXT, TEXT, aliases={"old": 1}, default=2)
    async with gateway.client() as client:
        for selector, version in {"1": "1", "old": "1", "latest": "2"}.items():
            path = f"/v2/models/m/versions/{selector}"
            body = {"inputs": [tensor("t", "BYTES", [1], ["a"])]}
            response = await client.post(f"{path}/infer", json=body)
            assert response.json()["model_version"] == version
            assert (await client.get(path)).json()["versions"] == ["1", "2"]
            assert (await client.get(f"{path}/ready")).json() == {"name": "m", "ready": True}
        for path in ("/v2/models/m/versions/3", "/v2/models/nope", "/v2/models/nope/ready"):
            response = await client.get(path)
            assert response.status_code == 404
            assert response.json()["error"] == response.json()["detail"]


async def test_health_server_and_index(gateway: EchoGateway, client: httpx.AsyncClient) -> None:
    """The server tells its extensions and health; the index has every version and its state."""
    assert "binary_tensor_data" in (await client.get("/v2")).json()["extensions"]
    assert (await client.get("/v2/health/live")).json()["live"] is True
    assert (await client.get("/v2/health/ready")).json()["ready"] is True
    ready = {"name": "m", "version": "1", "state": "READY", "reason": ""}
    assert (await client.post("/v2/repository/index")).json() == [ready]
    error = ModelUnavailable("It can't be loaded.", load_failed=True)
    gateway.backend.error = error
    assert (await infer(client, ROWS)).status_code == 503
    (entry,) = (await client.post("/v2/repository/index", json={})).json()
    assert (entry["state"], bool(entry["reason"])) == ("UNAVAILABLE", True)
    assert (await client.post("/v2/repository/index", json={"ready": True})).json() == []
    assert (await client.get("/v2/models/m/ready")).status_code == 503


async def test_requests_are_counted_by_protocol(
    gateway: EchoGateway, client: httpx.AsyncClient
) -> None:
    """Answers and refusals are counted with the protocol as a label."""
    await answered(client, ROWS)
    await pointers(client, ROWS[1:])
    counted = dict(gateway.traffic.reading()["modelmux_requests"])
    assert counted == {
        ("m", "1", "200", "inference_v2"): 1, ("m", "1", "422", "inference_v2"): 1,
    }  # fmt: skip


async def test_a_large_body_is_read_in_another_process() -> None:
    """What is read elsewhere, because it is large, is answered like everything else."""
    text = "x" * 3_000_000
    big = EchoGateway(TEXT, max_body_bytes=10_000_000)
    async with big.client() as client:
        response = await infer(client, [tensor("t", "BYTES", [1], [text])])
        wrong = await infer(client, [tensor("t", "BYTES", [1], [text]), 1])
    assert response.json()["outputs"][0]["data"] == [text]
    assert wrong.status_code == 422


async def test_other_media_types_are_refused(client: httpx.AsyncClient) -> None:
    """A body that is declared as something else is 415."""
    response = await client.post(
        "/v2/models/m/infer", content=b"a,b", headers={"Content-Type": "text/csv"}
    )
    assert response.status_code == 415


@pytest.mark.parametrize("shape", [[True], [1.0], [1, True], [True, 1]])
async def test_a_shape_is_of_whole_numbers_and_of_nothing_that_equals_them(
    shape: list[Any],
) -> None:
    """True and 1.0 are no sizes, though Python takes them for 1: 422 on the short way, too."""
    gateway = EchoGateway(signature([ColSpec(DataType.double, "x")]))
    async with gateway.client() as client:
        assert await pointers(client, [tensor("x", "FP64", shape, [0.5])]) == {"/inputs/0/shape"}
