"""Requests of the Open Inference Protocol v2, and what echoing models answer them."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
from mlflow.types import ColSpec, DataType, ParamSpec, TensorSpec
from mlflow.types.schema import Array

from tests.support.echo_gateway import EchoGateway, signature

TYPES = signature(
    [
        ColSpec("boolean", "b"),
        ColSpec("integer", "i"),
        ColSpec("long", "l"),
        ColSpec("float", "f"),
        ColSpec("double", "d"),
        ColSpec("string", "s"),
        ColSpec("binary", "bin"),
        ColSpec("datetime", "at"),
        ColSpec(Array(DataType.double), "list"),
        ColSpec("integer", "maybe", required=False),
        ColSpec("string", "note", required=False),
    ],
    params=[ParamSpec("times", "long", 1), ParamSpec("weights", "double", [1.0], shape=(-1,))],
)
TENSOR = signature([TensorSpec(np.dtype("float32"), (-1, 2, 3))])
NAMED = signature(
    [TensorSpec(np.dtype("float32"), (-1, 2), "p"), TensorSpec(np.dtype("int64"), (-1,), "q")]
)
UNNAMED = signature([ColSpec("double"), ColSpec("double")])
TEXT = signature([ColSpec("string")])


def tensor(name: str, datatype: str, shape: list[int], data: Any, **parameters: Any) -> Any:
    made = {"name": name, "datatype": datatype, "shape": shape, "data": data}
    return {**made, "parameters": parameters} if parameters else made


ROWS = [
    tensor("b", "BOOL", [2], [True, False]),
    tensor("i", "INT32", [2, 1], [[1], [-2]]),
    tensor("l", "INT64", [2], [2**53 + 1, 0]),
    tensor("f", "FP32", [2], [0.1, 3]),
    tensor("d", "FP64", [2, 1], [0.1, 1e300]),
    tensor("s", "BYTES", [2, 1], ["grün", ""]),
    tensor("bin", "BYTES", [2], ["AP8=", ""]),
    tensor("at", "BYTES", [2], ["2024-02-29T12:30:00.25", "2024-01-01"]),
    tensor("list", "BYTES", [2], ["[1, 2.5]", "[]"]),
]


def with_(changed: Any) -> list[Any]:
    return [changed if each["name"] == changed["name"] else each for each in ROWS]


async def infer(client: httpx.AsyncClient, inputs: list[Any], **more: Any) -> httpx.Response:
    return await client.post("/v2/models/m/infer", json={"inputs": inputs, **more})


async def answered(client: httpx.AsyncClient, inputs: list[Any], **more: Any) -> dict[str, Any]:
    response = await infer(client, inputs, **more)
    assert response.status_code == 200, response.text
    return {each["name"]: each for each in response.json()["outputs"]}


async def pointers(client: httpx.AsyncClient, inputs: list[Any], **more: Any) -> set[str]:
    response = await infer(client, inputs, **more)
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/json"
    return {each["pointer"] for each in response.json()["errors"]}


async def of_signature(text: str, inputs: list[Any], **more: Any) -> list[Any]:
    async with EchoGateway(text).client() as client:
        response = await infer(client, inputs, **more)
    assert response.status_code == 200, response.text
    return list(response.json()["outputs"])
