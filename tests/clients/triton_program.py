"""Run in an environment with tritonclient: HTTP's and gRPC's addresses as arguments."""

import sys

import numpy as np
import tritonclient.grpc as by_grpc
import tritonclient.http as by_http
from tritonclient.utils import InferenceServerException

VALUES = {
    "x": (np.array([1.5, 2.0]), "FP64"),
    "n": (np.array([[1], [2]]), "INT64"),
    "b": (np.array([True, False]), "BOOL"),
    "s": (np.array(["grün", "b"], object), "BYTES"),
    "bin": (np.array([b"\0\xff", b""], object), "BYTES"),
    "d": (np.array(["2024-01-01", "2024-01-02T00:00:01"], object), "BYTES"),
    "arr": (np.array([[1.0, 2], [3, 4]]), "FP64"),
    "f": (np.array([0.1, np.nan], np.float32), "FP32"),
}
ANSWERS = {
    "x": [1.5, 2.0],
    "n": [1, 2],
    "b": [True, False],
    "s": ["grün".encode(), b"b"],
    "bin": [b"\0\xff", b""],
    "d": [b"2024-01-01T00:00:00", b"2024-01-02T00:00:01"],
    "arr": [b"[1.0,2.0]", b"[3.0,4.0]"],
    "f": np.array([0.1, np.nan], np.float32).tolist(),
}


def inputs(module):
    made = []
    for name, (array, datatype) in VALUES.items():
        tensor = module.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


def check(client, module):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("types")
    assert client.is_model_ready("types", "1")
    assert "binary_tensor_data" in str(client.get_server_metadata())
    assert "FP32" in str(client.get_model_metadata("tensor"))
    assert "READY" in str(client.get_model_repository_index())

    answer = client.infer("types", inputs(module), request_id="42", parameters={"times": 3})
    for name, expected in ANSWERS.items():
        np.testing.assert_equal(answer.as_numpy(name).tolist(), expected)
    two = [module.InferRequestedOutput("s"), module.InferRequestedOutput("x")]
    answer = client.infer("types", inputs(module), outputs=two, model_version="1")
    assert answer.as_numpy("x").tolist() == [1.5, 2.0]
    assert answer.as_numpy("n") is None

    array = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    image = module.InferInput("any name", [2, 2, 3], "FP32")
    image.set_data_from_numpy(array)
    assert (client.infer("tensor", [image]).as_numpy("output-0") == array).all()

    for call, words in (
        (lambda: client.infer("nope", [image]), "no such model"),
        (lambda: client.infer("plain", [image]), "Required, and missing: 'a'."),
        (lambda: client.infer("types", inputs(module), parameters={"times": "x"}), "/times"),
    ):
        try:
            call()
        except InferenceServerException as error:
            assert words in str(error), error
        else:
            raise AssertionError(words)


web = by_http.InferenceServerClient(sys.argv[1])
check(web, by_http)
check(by_grpc.InferenceServerClient(sys.argv[2]), by_grpc)
for algorithm in ("gzip", "deflate"):
    answer = web.infer(
        "types",
        inputs(by_http),
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert answer.as_numpy("x").tolist() == [1.5, 2.0]
as_json = by_http.InferRequestedOutput("bin", binary_data=False)
assert web.infer("types", inputs(by_http), outputs=[as_json]).as_numpy("bin").tolist() == [
    "AP8=", "",
]  # fmt: skip
print("all good")
