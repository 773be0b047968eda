"""Run in an environment with kserve: HTTP's and gRPC's addresses as arguments."""

import asyncio
import sys

import httpx
import numpy as np
from kserve import (
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferRequest,
    RESTConfig,
)
from kserve.protocol.infer_type import RequestedOutput


def request(binary):
    array = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    tensor = InferInput("input-0", [2, 2, 3], "FP32")
    tensor.set_data_from_numpy(array, binary_data=binary)
    return array, InferRequest("tensor", [tensor], request_id="42")


async def rest(url):
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(url)
    assert await client.is_server_ready(url)
    assert await client.is_model_ready(url, "tensor")
    assert not await client.is_model_ready(url, "nope")
    for binary in (True, False):
        array, sent = request(binary)
        answer = await client.infer(url, sent, model_name="tensor")
        assert (answer.id, answer.model_name) == ("42", "tensor")
        assert (answer.outputs[0].as_numpy() == array).all()
    sent = InferRequest(
        "tensor", sent.inputs, request_outputs=[RequestedOutput("output-0", {"binary_data": True})]
    )
    answer = await client.infer(url, sent, model_name="tensor")
    assert (answer.outputs[0].as_numpy() == array).all()
    texts = InferInput("t", [2], "BYTES")
    texts.set_data_from_numpy(np.array(["grün", "b"], object), binary_data=True)
    numbers = InferInput("a", [2, 1], "FP64", data=[1.5, 2.0])
    answer = await client.infer(url, InferRequest("plain", [numbers, texts]), model_name="plain")
    assert [output.name for output in answer.outputs] == ["a", "t"]
    try:
        await client.infer(url, InferRequest("plain", [numbers]), model_name="plain")
    except httpx.HTTPStatusError as error:
        assert "Required, and missing: 't'." in str(error), error
    else:
        raise AssertionError
    await client.close()


async def by_grpc(address):
    client = InferenceGRPCClient(address)
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("tensor")
    for binary in (True, False):
        array, sent = request(binary)
        answer = await client.infer(sent)
        assert answer.id == "42"
        assert (answer.outputs[0].as_numpy() == array).all()
    await client.close()


asyncio.run(rest(f"http://{sys.argv[1]}"))
asyncio.run(by_grpc(sys.argv[2]))
print("all good")
