"""Binary tensors of the Open Inference Protocol v2, in and out."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from mlflow.types import ColSpec

from tests.support.echo_gateway import EchoGateway, signature
from tests.support.v2_tensors import NAMED, ROWS, TEXT, TYPES, answered, tensor


@pytest.fixture
def gateway() -> EchoGateway:
    return EchoGateway(TYPES)


@pytest.fixture
async def client(gateway: EchoGateway) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.client() as client:
        yield client


def binary(*tensors: tuple[str, str, list[int], bytes], **more: Any) -> tuple[bytes, dict]:
    """A body with binary tensors, and its headers."""
    inputs = [
        {"name": n, "datatype": t, "shape": s, "parameters": {"binary_data_size": len(data)}}
        for n, t, s, data in tensors
    ]
    text = orjson.dumps({"inputs": inputs, **more})
    headers = {"Inference-Header-Content-Length": str(len(text))}
    return b"".join((text, *(data for *_, data in tensors))), headers


async def sent(
    client: httpx.AsyncClient, body: bytes, headers: dict[str, str]
) -> tuple[dict[str, Any], bytes]:
    response = await client.post("/v2/models/m/infer", content=body, headers=headers)
    assert response.status_code == 200, response.text
    length = int(response.headers.get("inference-header-content-length", len(response.content)))
    return orjson.loads(response.content[:length]), response.content[length:]


async def test_binary_tensors_go_in_and_out_as_they_are() -> None:
    """Binary inputs are read, NaN included, and outputs are binary where that is asked for."""
    p = np.array([[1, np.nan], [3, np.inf]], "<f4")
    q = np.array([1, 2], "<i8")
    async with EchoGateway(NAMED).client() as client:
        body, headers = binary(
            ("p", "FP32", [2, 2], p.tobytes()),
            ("q", "INT64", [2, 1], q.tobytes()),
            parameters={"binary_data_output": True},
            outputs=[{"name": "q", "parameters": {"binary_data": False}}, {"name": "p"}],
        )
        head, data = await sent(client, body, headers)
    assert head["outputs"] == [
        {"name": "q", "datatype": "INT64", "shape": [2], "data": [1, 2]},
        {"name": "p", "datatype": "FP32", "shape": [2, 2],
         "parameters": {"binary_data_size": 16}},
    ]  # fmt: skip
    assert data == p.tobytes()


async def test_binary_bytes_are_texts_and_bytes_by_the_signature(
    client: httpx.AsyncClient,
) -> None:
    """Elements of BYTES are their length and themselves: text, or bytes that are no base64."""

    def packed(*values: bytes) -> bytes:
        return b"".join(struct.pack("<I", len(value)) + value for value in values)

    texts, octets = packed("grün".encode(), b""), packed(b"\0\xff", b"AP8=")
    plain = [each for each in ROWS if each["name"] not in ("s", "bin")]
    text = orjson.dumps(
        {
            "inputs": [
                *plain,
                {"name": "s", "datatype": "BYTES", "shape": [2],
                 "parameters": {"binary_data_size": len(texts)}},
                {"name": "bin", "datatype": "BYTES", "shape": [2],
                 "parameters": {"binary_data_size": len(octets)}},
            ],
            "outputs": [
                {"name": "bin", "parameters": {"binary_data": True}},
                {"name": "s", "parameters": {"binary_data": True}},
            ],
        }
    )  # fmt: skip
    headers = {"Inference-Header-Content-Length": str(len(text))}
    head, data = await sent(client, text + texts + octets, headers)
    assert data == octets + texts
    assert [each["parameters"].get("content_type") for each in head["outputs"]] == [None, "str"]


async def test_an_output_with_null_is_json_where_binary_was_asked(
    client: httpx.AsyncClient,
) -> None:
    """Binary data have no null: such an output comes as JSON, the others as binary."""
    inputs = [*ROWS, tensor("note", "BYTES", [2], ["x", None])]
    text = orjson.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}})
    head, data = await sent(client, text, {})
    outputs = {each["name"]: each for each in head["outputs"]}
    assert outputs["note"]["data"] == ["x", None]
    assert "data" not in outputs["d"]
    sizes = [each.get("parameters", {}).get("binary_data_size", 0) for each in head["outputs"]]
    assert sum(sizes) == len(data)


@pytest.mark.parametrize(
    ("data", "size", "length"),
    [
        (b"\0" * 15, 15, None),  # not what the shape says
        (b"\0" * 16, 17, None),  # more than there is
        (b"\0" * 17, 16, None),  # a byte of no tensor
        (b"\0" * 16, -1, None),
        (b"\0" * 16, 16, "x"),
        (b"\0" * 16, 16, "9" * 30),
        (b"\0" * 16, 16, "3"),
    ],
)
async def test_binary_data_that_do_not_fit_are_refused(
    data: bytes, size: int, length: str | None
) -> None:
    """Sizes that disagree with the shape, the body or the header are 4xx, and never read beyond."""
    inputs = [
        {"name": "x", "datatype": "FP64", "shape": [2], "parameters": {"binary_data_size": size}}
    ]
    text = orjson.dumps({"inputs": inputs})
    async with EchoGateway(signature([ColSpec("double", "x")])).client() as client:
        response = await client.post(
            "/v2/models/m/infer",
            content=text + data,
            headers={"Inference-Header-Content-Length": length or str(len(text))},
        )
    assert response.status_code in (400, 422), response.text


@pytest.mark.parametrize(
    "octets",
    [b"\1\0\0\0", b"\1\0\0\0aa", b"\xff\xff\xff\xffa", b"\1\0\0\0a\0\0\0", b"\1\0\0\0\xff"],
)
async def test_broken_bytes_are_refused(octets: bytes) -> None:
    """BYTES whose lengths lead elsewhere, or that are no text where it is due, are 422."""
    async with EchoGateway(TEXT).client() as client:
        body, headers = binary(("t", "BYTES", [1], octets))
        response = await client.post("/v2/models/m/infer", content=body, headers=headers)
    assert response.status_code == 422, response.text


async def test_rows_and_tensors_may_share_a_call() -> None:
    """The same values make the same frame by JSON rows, plain tensors and binary ones, so that all
    of them may travel together."""
    gateway = EchoGateway(signature([ColSpec("double", "x"), ColSpec("string", "s")]))
    x = np.array([0.5, 2.0], "<f8")
    s = [b"\1\0\0\0a", b"\1\0\0\0b"]
    body, headers = binary(("x", "FP64", [2, 1], x.tobytes()), ("s", "BYTES", [2], b"".join(s)))
    plain = [tensor("s", "BYTES", [2, 1], ["a", "b"]), tensor("x", "FP64", [2], [0.5, 2])]
    async with gateway.client() as client:
        rows = [{"x": 0.5, "s": "a"}, {"x": 2, "s": "b"}]
        assert (await client.post("/models/m/predict", json=rows)).status_code == 200
        await answered(client, plain)
        await answered(client, [{**each, "parameters": {}} for each in plain])
        await sent(client, body, headers)
    frames = [call.frame for call in gateway.backend.calls]
    assert len({frame.key for frame in frames}) == 1
    for frame in frames:
        assert [list(column) for column in frame.columns] == [[0.5, 2.0], ["a", "b"]]
