"""Run in an environment with open-inference-openapi: HTTP's address as the first argument."""

import sys

from open_inference.openapi import InferenceRequest
from open_inference.openapi.client import OpenInferenceClient

client = OpenInferenceClient(base_url=f"http://{sys.argv[1]}")
client.check_server_liveness()
client.check_server_readiness()
assert client.read_server_metadata().name == "modelmux"
client.check_model_readiness("plain")
metadata = client.read_model_metadata("plain")
assert [(each.name, each.datatype) for each in metadata.inputs] == [("a", "FP64"), ("t", "BYTES")]
request = InferenceRequest(
    id="42",
    inputs=[
        {"name": "a", "shape": [2], "datatype": "FP64", "data": [1.5, 2.0]},
        {"name": "t", "shape": [2], "datatype": "BYTES", "data": ["grün", "b"]},
    ],
)
answer = client.model_infer("plain", request=request)
assert (answer.id, answer.model_name) == ("42", "plain")
assert [output.data.__root__ for output in answer.outputs] == [[1.5, 2.0], ["grün", "b"]]
print("all good")
