"""`ModelInfer`: its messages, from and to the values of `infer`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from gateway.catalog import Resolution
from gateway.contract import Contract, Outputs, Request, Written
from gateway.contract.validation import Path
from gateway.errors import MalformedBody, NotAcceptable
from gateway.http.protocols.inference_v2.grpc_messages import message
from gateway.http.protocols.inference_v2.infer_answer import (
    AnswerTensors,
    binary_data,
    said_parameters,
)
from gateway.http.protocols.inference_v2.infer_request import (
    InferParser,
    InferRequest,
    Wanted,
)
from gateway.http.protocols.inference_v2.tensors import (
    BYTES,
    DTYPES,
    Elements,
    Tensor,
    elements_of_bytes,
    elements_of_json,
    has_fractions,
    refused,
    require_datatype,
    shape_of,
)

_InferRequest, _InferResponse = message("ModelInferRequest"), message("ModelInferResponse")

_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
"""Where typed contents of a datatype are; what isn't here has raw contents only."""


def parsed(kind: Any, body: bytes) -> Any:
    """The message of that class; raises MalformedBody."""
    try:
        return kind.FromString(body)
    except DecodeError:
        raise MalformedBody("What came is no message of the protocol.") from None


def read(contract: Contract, body: bytes, max_rows: int | None) -> Request:
    """See `gateway.contract.Read`; it crosses to the process that parses large bodies."""
    sent = parsed(_InferRequest, body)
    raw = [memoryview(each) for each in sent.raw_input_contents]
    if raw and len(raw) != len(sent.inputs):
        raise refused(("raw_input_contents",), f"Expected {len(sent.inputs)}: one for each input.")
    tensors = [_tensor(each, i, raw[i] if raw else None) for i, each in enumerate(sent.inputs)]
    wanted = Wanted(id=sent.id or None, binary=bool(raw), outputs=_outputs(sent.outputs))
    infer = InferRequest(tensors=tensors, parameters=_parameters(sent.parameters), wanted=wanted)
    return contract.derived(InferParser).request(infer, max_rows)


def _tensor(sent: Any, position: int, raw: memoryview | None) -> Tensor:
    at: Path = ("inputs", position)
    datatype = require_datatype(sent.datatype, (*at, "datatype"))
    shape = shape_of(list(sent.shape), (*at, "shape"))
    if raw is not None:
        elements = elements_of_bytes(datatype, shape, raw, ("raw_input_contents", position))
    else:
        elements = _contents(datatype, shape, sent.contents, (*at, "contents"))
    return Tensor(sent.name, datatype, shape, elements, _parameters(sent.parameters), at)


def _contents(datatype: str, shape: tuple[int, ...], sent: Any, at: Path) -> Elements:
    name = _CONTENTS.get(datatype)
    if name is None:
        raise refused(at, f"{datatype} has raw contents only.")
    contents = getattr(sent, name)
    if len(contents) != prod(shape):
        raise refused((*at, name), f"Expected {prod(shape)} elements, as the shape says.")
    if datatype == BYTES:
        return list(contents)
    if has_fractions(datatype):  # which may be NaN here
        return np.fromiter(contents, DTYPES[datatype], len(contents))
    return elements_of_json(datatype, shape, list(contents), (*at, name))


def _outputs(sent: Sequence[Any]) -> Mapping[str, bool] | None:
    """All in the form of the request: raw contents are of all tensors or of none."""
    for i, each in enumerate(sent):
        for name, value in _parameters(each.parameters).items():
            if name in ("classification", "shared_memory_region") and value:
                at = ("outputs", i, "parameters", name)
                raise refused(at, "The gateway has no such extension.")
    return {each.name: True for each in sent} or None


def _parameters(sent: Iterable[Any]) -> dict[str, Any]:
    values = {}
    for each in sent:
        choice = each.value.WhichOneof("choice")
        values[each.key] = None if choice is None else getattr(each.value, choice)
    return values


def write(
    contract: Contract, request: Request, outputs: Outputs, resolution: Resolution
) -> Written:
    """The answer's message, of what `resolution` says; see `gateway.contract.Write`."""
    tensors = contract.derived(AnswerTensors).of(request, outputs)
    wanted: Wanted = request.echo
    answer = _InferResponse(
        model_name=resolution.model.name,
        model_version=str(resolution.version.number),
        id=wanted.id or "",
    )
    raw = wanted.binary or any(tensor.datatype not in _CONTENTS for tensor in tensors)
    for tensor in tensors:
        octets = binary_data(tensor)
        if octets is None:
            raise NotAcceptable(
                f"The output {tensor.name!r} has a null, for which gRPC's messages have no form: "
                "ask for it by REST."
            )
        output = answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        for key, value in said_parameters(tensor, binary=True).items():
            output.parameters.add(key=key).value.string_param = value
        if raw:
            answer.raw_output_contents.append(octets)
        else:
            contents = getattr(output.contents, _CONTENTS[tensor.datatype])
            contents.extend(_typed(tensor, octets))
    return Written(body=answer.SerializeToString(), media_type=b"application/grpc")


def _typed(tensor: Tensor, octets: bytes) -> Iterable[Any]:
    """The elements as typed contents have them: of BYTES the bytes themselves."""
    found = elements_of_bytes(tensor.datatype, tensor.shape, memoryview(octets), ())
    return found if isinstance(found, list) else found.tolist()
