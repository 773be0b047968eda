"""The Open Inference Protocol through a real Ray: REST behind HAProxy, gRPC at its own port."""

from __future__ import annotations

import grpc
import numpy as np
import orjson

from gateway.http.protocols.inference_v2.grpc_messages import SERVICE, message
from tests.support.processes import Gateway


def test_rest_and_grpc_answer_what_the_typed_route_answers(
    registered: str, shared_gateway: Gateway, grpc_port: int
) -> None:
    """Binary tensors by REST and raw contents by gRPC reach the version that they name, and come
    back as the typed route's answer."""
    shared_gateway.sync()
    rows = np.array([0.5, 2.0], "<f8")
    typed = shared_gateway.predict("versions", [{"x": each} for each in rows.tolist()])
    expected = [row["x"] for row in typed.json()]

    text = orjson.dumps(
        {
            "inputs": [
                {"name": "x", "datatype": "FP64", "shape": [2, 1],
                 "parameters": {"binary_data_size": rows.nbytes}}
            ],
            "parameters": {"binary_data_output": True},
        }
    )  # fmt: skip
    response = shared_gateway.client.post(
        "/v2/models/versions/versions/second/infer",
        content=text + rows.tobytes(),
        headers={"Inference-Header-Content-Length": str(len(text))},
    )
    assert response.status_code == 200, response.text
    length = int(response.headers["Inference-Header-Content-Length"])
    assert orjson.loads(response.content[:length])["model_version"] == "2"
    assert np.frombuffer(response.content[length:], "<f8").tolist() == expected

    request = message("ModelInferRequest")(model_name="versions", model_version="second")
    request.inputs.add(name="x", datatype="FP64", shape=[2])
    request.raw_input_contents.append(rows.tobytes())
    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        infer = channel.unary_unary(
            f"/{SERVICE}/ModelInfer",
            request_serializer=message("ModelInferRequest").SerializeToString,
            response_deserializer=message("ModelInferResponse").FromString,
        )
        answer = infer(request, timeout=60)
    assert answer.model_version == "2"
    assert np.frombuffer(answer.raw_output_contents[0], "<f8").tolist() == expected
