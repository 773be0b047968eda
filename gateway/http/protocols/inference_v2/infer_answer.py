"""A model's answer -> the body of `POST …/infer`: JSON, and binary data behind it where asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from gateway.contract import AnswerColumn, Contract, Joint, Output, Outputs, Request, Written
from gateway.contract.answer_text import dumped, in_utf8
from gateway.contract.outputs import is_row_by_row
from gateway.contract.rendering import UNNAMED
from gateway.contract.text_formats import read_base64
from gateway.contract.types import AnyValue
from gateway.http.protocols.inference_v2.infer_request import Wanted, check_names
from gateway.http.protocols.inference_v2.output_tensors import OutputTensor, undeclared_tensor
from gateway.http.protocols.inference_v2.tensor_specs import BASE64, TensorSpec, output_specs
from gateway.http.protocols.inference_v2.tensors import (
    BYTES,
    DTYPES,
    Elements,
    Tensor,
    bytes_of,
    has_fractions,
)

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY
_UNNAMED = "output-0"
_OCTETS = b"application/octet-stream"
_JSON_LENGTH = b"inference-header-content-length"


class AnswerTensors:
    """Makes the tensors of answers, for one contract."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        specs = output_specs(contract.promised)
        self._declared = None if contract.promised is None else list(map(OutputTensor, specs))

    def of(self, request: Request, outputs: Outputs) -> list[Tensor]:
        """The tensors that are wanted, in that order; an optional output that no row has is left
        out unless it was asked for.

        Raises InvalidModelOutput and, where an output is asked for that only now turns out not to
        be there, InvalidInput.
        """
        wanted: Wanted = request.echo
        columns = self._contract.columns(outputs, request.rows, arrays=True)
        found: dict[str, Tensor] = {}
        if self._declared is not None and len(columns) != len(self._declared):
            columns = [_records(columns)]
        for i, column in enumerate(columns):
            if self._declared is None:
                name = _UNNAMED if column.name == UNNAMED else column.name
                if wanted.outputs is None or name in wanted.outputs:
                    found[name] = undeclared_tensor(name, column.values)
            elif _is_wanted(self._declared[i].spec, column, wanted):
                found[self._declared[i].spec.name] = self._declared[i].of(column.values)
        if wanted.outputs is None:
            return list(found.values())
        check_names(wanted, found)
        return [found[name] for name in wanted.outputs]

    def written_each(
        self, joint: Joint, output: Output, *, model: str, version: int
    ) -> list[bytes] | None:
        """The answers to several requests that want all as JSON; None where they have to be made
        one by one: something is no plain column, or isn't declared.

        Raises InvalidModelOutput.
        """
        if self._declared is None or not is_row_by_row(output):
            return None
        outputs = [(range(joint.frame.rows), output)]
        columns = self._contract.columns(outputs, joint.frame.rows, arrays=True)
        if len(columns) != len(self._declared):
            return None
        each: list[list[bytes]] = [[] for _ in joint.sizes]
        for declared, column in zip(self._declared, columns, strict=True):
            if column.is_there:
                if not column.is_whole:  # the rows of one may be without it
                    return None
                for texts, text in zip(each, _written(declared, column, joint), strict=True):
                    texts.append(text)
        head = orjson.dumps(_head(model, version))[:-1] + b',"outputs":['
        return [b"%b%b]}" % (head, b",".join(texts)) for texts in each]


def _records(columns: Sequence[AnswerColumn]) -> AnswerColumn:
    """The one output that is declared as anything, of a table that has columns of its own."""
    names = [column.name for column in columns]
    rows = zip(*(column.values for column in columns), strict=True)
    return AnswerColumn(
        UNNAMED, AnyValue(), True, [dict(zip(names, row, strict=True)) for row in rows]
    )


def _is_wanted(spec: TensorSpec, column: AnswerColumn, wanted: Wanted) -> bool:
    if wanted.outputs is not None:
        return spec.name in wanted.outputs
    return column.is_there


def _written(declared: OutputTensor, column: AnswerColumn, joint: Joint) -> Iterator[bytes]:
    """The JSON of a tensor of each request."""
    values = column.values
    if not declared.is_flat:
        for part in joint.parts(values):
            yield dumped(_output(declared.of(part), Wanted(), []))
        return
    if isinstance(values, np.ndarray) and len(values) == len(joint.sizes):
        # A number each, and in numbers there is no comma.
        texts = dumped(_json_data(values))[1:-1].split(b",")
        head = declared.head(1)
        for text in texts:
            yield b"%b[%b]}" % (head, text)
        return
    for rows, part in zip(joint.sizes, joint.parts(values), strict=True):
        data = dumped(_json_data(part))
        yield b"%b%b}" % (declared.head(rows), data)


def _head(model: str, version: int) -> dict[str, Any]:
    return {"model_name": model, "model_version": str(version)}


def written_answer(
    tensors: Sequence[Tensor], wanted: Wanted, *, model: str, version: int
) -> Written:
    """The answer as it is sent. What is null has no binary form: such a tensor is JSON."""
    head = _head(model, version)
    if wanted.id is not None:
        head["id"] = wanted.id
    data: list[bytes] = []
    head["outputs"] = [_output(tensor, wanted, data) for tensor in tensors]
    text = dumped(head)
    if not data:
        return Written(body=text)
    length = (_JSON_LENGTH, b"%d" % len(text))
    return Written(body=b"".join((text, *data)), media_type=_OCTETS, headers=(length,))


def _output(tensor: Tensor, wanted: Wanted, data: list[bytes]) -> dict[str, Any]:
    """The JSON of a tensor; its binary data are added to `data` where they are wanted."""
    said: dict[str, Any] = {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": tensor.shape,
    }
    binary = wanted.binary if wanted.outputs is None else wanted.outputs[tensor.name]
    octets = binary_data(tensor) if binary else None
    parameters = said_parameters(tensor, binary=octets is not None)
    if octets is not None:
        data.append(octets)
        said["parameters"] = {**parameters, "binary_data_size": len(octets)}
        return said
    if parameters:
        said["parameters"] = parameters
    said["data"] = _json_data(tensor.elements)
    return said


def binary_data(tensor: Tensor) -> bytes | None:
    """The elements as binary data; None where one of them is null."""
    elements = tensor.elements
    if isinstance(elements, np.ndarray):
        elements = elements.astype(DTYPES[tensor.datatype], copy=False)
    elif tensor.datatype != BYTES:
        if None in elements and not has_fractions(tensor.datatype):
            return None
        elements = np.array(elements, DTYPES[tensor.datatype])  # None becomes NaN
    else:
        if None in elements:
            return None
        if _is_base64(tensor):
            elements = [read_base64(each) for each in elements]
    with in_utf8():
        return bytes_of(elements)


def _is_base64(tensor: Tensor) -> bool:
    return tensor.parameters is not None and tensor.parameters.get("content_type") == BASE64


def said_parameters(tensor: Tensor, *, binary: bool) -> Mapping[str, Any]:
    """What the answer says of the elements; binary data are bytes themselves and no base64."""
    if tensor.parameters is None or (binary and _is_base64(tensor)):
        return {}
    return tensor.parameters


def _json_data(elements: Elements) -> Any:
    """What orjson can write: no half precision, no other byte order, no column of a table."""
    if not isinstance(elements, np.ndarray):
        return elements
    if elements.dtype.itemsize == 2 and elements.dtype.kind == "f":
        return elements.astype(np.float32)
    if elements.flags.c_contiguous and elements.dtype.isnative:
        return elements
    return np.ascontiguousarray(elements, elements.dtype.newbyteorder("="))
