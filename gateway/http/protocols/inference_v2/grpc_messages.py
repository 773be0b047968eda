"""The messages of the gRPC service `inference.GRPCInferenceService`, for `google.protobuf`.

Made of the table below and not by protoc: generated code is bound to releases of protobuf, of which
an environment has the one that Ray and a model's packages agree on. They are in a pool of their
own, because a process that has these names already (a client's, in the tests) would refuse them a
second time. What is on the wire is numbers and types only: so messages within messages are beside
each other here, and a map is the list of its entries, as protobuf's encoding has it.

Specification: kserve/open-inference-protocol, open_inference_grpc.proto; `RepositoryIndex` is of
Triton's model repository extension.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"

_PACKAGE = "modelmux.inference"
_ONE_OF = "one of "

# Name of a message -> its fields: number, type (`*` is repeated) and name.
_MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "1 bool live",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "1 bool ready",
    "ModelReadyRequest": "1 string name, 2 string version",
    "ModelReadyResponse": "1 bool ready",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "1 string name, 2 string version, 3 string* extensions",
    "ModelMetadataRequest": "1 string name, 2 string version",
    "ModelMetadataResponse": (
        "1 string name, 2 string* versions, 3 string platform, "
        "4 TensorMetadata* inputs, 5 TensorMetadata* outputs"
    ),
    "TensorMetadata": "1 string name, 2 string datatype, 3 int64* shape",
    "ModelInferRequest": (
        "1 string model_name, 2 string model_version, 3 string id, 4 Parameter* parameters, "
        "5 InferTensor* inputs, 6 RequestedOutput* outputs, 7 bytes* raw_input_contents"
    ),
    "ModelInferResponse": (
        "1 string model_name, 2 string model_version, 3 string id, 4 Parameter* parameters, "
        "5 InferTensor* outputs, 6 bytes* raw_output_contents"
    ),
    "InferTensor": (
        "1 string name, 2 string datatype, 3 int64* shape, 4 Parameter* parameters, "
        "5 Contents contents"
    ),
    "RequestedOutput": "1 string name, 2 Parameter* parameters",
    "Parameter": "1 string key, 2 ParameterValue value",
    "ParameterValue": (
        "one of 1 bool bool_param, 2 int64 int64_param, 3 string string_param, "
        "4 double double_param, 5 uint64 uint64_param"
    ),
    "Contents": (
        "1 bool* bool_contents, 2 int32* int_contents, 3 int64* int64_contents, "
        "4 uint32* uint_contents, 5 uint64* uint64_contents, 6 float* fp32_contents, "
        "7 double* fp64_contents, 8 bytes* bytes_contents"
    ),
    "RepositoryIndexRequest": "1 string repository_name, 2 bool ready",
    "RepositoryIndexResponse": "1 ModelIndex* models",
    "ModelIndex": "1 string name, 2 string version, 3 string state, 4 string reason",
}


def _described() -> descriptor_pb2.FileDescriptorProto:
    described = descriptor_pb2.FileDescriptorProto(
        name="modelmux/inference.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = described.message_type.add(name=name)
        is_choice = fields.startswith(_ONE_OF)
        if is_choice:
            message.oneof_decl.add(name="choice")
        for field in filter(None, fields.removeprefix(_ONE_OF).split(", ")):
            _describe(message.field.add(), field)
            if is_choice:
                message.field[-1].oneof_index = 0
    return described


def _describe(field: Any, text: str) -> None:
    number, kind, field.name = text.split()
    field.number = int(number)
    one = kind.removesuffix("*")
    field.label = field.LABEL_OPTIONAL if one == kind else field.LABEL_REPEATED
    if one in _MESSAGES:
        field.type, field.type_name = field.TYPE_MESSAGE, f".{_PACKAGE}.{one}"
    else:
        field.type = getattr(field, f"TYPE_{one.upper()}")


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_described())


def message(name: str) -> Any:
    """The class of the messages of that name."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
