"""`POST …/infer`: the body, JSON and the binary data behind it, -> tensors and what is asked of the
answer.

The structure is checked here, with pointers into the JSON; what tensors mean to a model is
`input_columns`' matter. gRPC's requests become the same values (`grpc_translation`).
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.contract import (
    Contract,
    Joint,
    Request,
    Table,
    joined_columns,
    malformed,
    values_of,
)
from gateway.contract.types import ArrayOf, MapOf, ObjectOf, Type
from gateway.contract.validation import Path
from gateway.http.protocols.inference_v2.input_columns import InputColumns, checked_content_type
from gateway.http.protocols.inference_v2.tensor_specs import input_specs, output_specs
from gateway.http.protocols.inference_v2.tensors import (
    Tensor,
    elements_of_bytes,
    elements_of_json,
    refused,
    require_datatype,
    shape_of,
)

# Parameters that are none of the model's, unless it has one of that name. What Triton's clients say
# of its queues means nothing here: Triton itself takes no notice, unless a model is set up for it.
_CONTENT_TYPE, _ALL_BINARY = "content_type", "binary_data_output"
_OF_THE_PROTOCOL = frozenset({_CONTENT_TYPE, _ALL_BINARY, "priority", "timeout"})
_NOT_DONE = ("classification", "shared_memory_region")


@dataclass(slots=True, kw_only=True)
class Wanted:
    """What the answer is to be like: `outputs` maps names to whether each is to be binary, in the
    order in which they were asked for; None is all of them, as `binary` says."""

    id: str | None = None
    binary: bool = False
    outputs: Mapping[str, bool] | None = None


@dataclass(slots=True, kw_only=True)
class InferRequest:
    """A request as it came: parameters are the protocol's and the model's."""

    tensors: list[Tensor]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    wanted: Wanted


def read(contract: Contract, body: bytes, max_rows: int | None, json_length: int | None) -> Request:
    """See `Read`; the first `json_length` bytes are JSON, or all of them. It crosses to the process
    that parses large bodies."""
    value, rest = _json(body, json_length)
    parser = contract.derived(InferParser)
    if json_length is None:
        plain = parser.plain_request(value, max_rows)
        if plain is not None:
            return plain
    return parser.request(_infer_request(value, rest), max_rows)


def read_together(contract: Contract, bodies: Sequence[bytes]) -> Joint | None:
    """Several requests of JSON's plain values alone; None where one isn't that."""
    values = values_of(bodies)
    if values is None:
        return None
    parser = contract.derived(InferParser)
    each = [parser.plain_columns(value) for value in values]
    found = [columns for columns in each if columns is not None]
    if len(found) < len(bodies):
        return None
    return joined_columns(contract, found, echo=_ALL_AS_JSON)


def _json(body: bytes, json_length: int | None) -> tuple[Any, memoryview]:
    """The JSON of a body whose first `json_length` bytes it is, or all of it; and what is behind
    it. Raises MalformedJson."""
    text, rest = body.removeprefix(BOM_UTF8), memoryview(b"")
    if json_length is not None:
        whole = memoryview(body)
        text = bytes(whole[:json_length]).removeprefix(BOM_UTF8)
        rest = whole[json_length:]
    try:
        return orjson.loads(text), rest
    except orjson.JSONDecodeError:
        raise malformed(text) from None


def _infer_request(value: Any, rest: memoryview) -> InferRequest:
    """The request that its JSON and the binary data behind it are; raises InvalidInput."""
    if type(value) is not dict:
        raise refused((), "Expected an object.")
    inputs = value.get("inputs")
    if type(inputs) is not list:
        raise refused(("inputs",), "Expected a list of tensors.")
    tensors = []
    for i, each in enumerate(inputs):
        tensor, rest = _tensor(each, ("inputs", i), rest)
        tensors.append(tensor)
    if rest.nbytes:
        raise refused(("inputs",), f"{rest.nbytes} bytes of data are of no tensor.")
    parameters = _object(value.get("parameters"), ("parameters",))
    binary = _flag(parameters, _ALL_BINARY, ("parameters",), False)
    wanted = Wanted(
        id=_text_or_none(value.get("id"), ("id",)),
        binary=binary,
        outputs=_outputs(value.get("outputs"), binary),
    )
    return InferRequest(tensors=tensors, parameters=parameters, wanted=wanted)


_ALL_AS_JSON = Wanted()
# Name, shape, datatype and data.
_PLAIN_MEMBERS = 4


class InferParser:
    """Makes requests of what came, for one contract."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._columns = InputColumns(contract.accepted)
        declared = output_specs(contract.promised)
        self._outputs = {spec.name for spec in declared} or None
        self._plain = {spec.name: spec.datatype for spec in input_specs(contract.accepted)}
        self._params = {param.name: param.type for param in contract.accepted_params}

    def plain_request(self, value: Any, max_rows: int | None) -> Request | None:
        """The request of JSON that is the commonest (see `plain_columns`). Several times as fast;
        what isn't that (None) goes the other way."""
        columns = self.plain_columns(value)
        if columns is None:
            return None
        rows = len(next(iter(columns.values())))
        if max_rows is not None and rows > max_rows:
            return None
        return self._contract.take_plain(columns, rows, echo=_ALL_AS_JSON)

    def plain_columns(self, value: Any) -> dict[str, list[Any]] | None:
        """The columns of JSON that has a tensor of JSON's plain values for each, of the type that
        the metadata say, and nothing more."""
        if type(value) is not dict or len(value) != 1 or not self._plain:
            return None
        columns: dict[str, list[Any]] = {}
        rows = -1
        inputs = value.get("inputs")
        for each in inputs if type(inputs) is list else ():
            if type(each) is not dict or len(each) != _PLAIN_MEMBERS:
                return None
            name, data = each.get("name"), each.get("data")
            if type(name) is not str or type(data) is not list:
                return None
            count = len(data)
            if self._plain.get(name, "") != each.get("datatype") or rows not in (-1, count):
                return None
            shape = each.get("shape")
            if shape not in ([count], [count, 1]) or not all(type(size) is int for size in shape):
                return None  # Python's 1 equals true and 1.0
            columns[name], rows = data, count
        return columns if columns and len(columns) == len(inputs or ()) else None

    def request(self, infer: InferRequest, max_rows: int | None) -> Request:
        """The request, whose `echo` is what is `Wanted`; raises InvalidInput, PayloadTooLarge."""
        meaning = None
        if infer.parameters:
            meaning = infer.parameters.get(_CONTENT_TYPE)
        if meaning is not None:
            meaning = checked_content_type(meaning, ("parameters", _CONTENT_TYPE))
        check_names(infer.wanted, self._outputs)
        columns, rows, places = self._columns.read(infer.tensors, meaning)
        params = {
            name: _param(value, self._params.get(name))
            for name, value in infer.parameters.items()
            if name not in _OF_THE_PROTOCOL or name in self._params
        }
        bare = len(columns) == 1
        table = Table(columns=columns, rows=rows, params=params, places=places, bare=bare)
        return self._contract.take(table, max_rows=max_rows, echo=infer.wanted)


def _param(value: Any, type_: Type | None) -> Any:
    """Parameters are texts, numbers and truth values; of a list or an object they are its JSON."""
    if type(value) is not str or not isinstance(type_, ArrayOf | ObjectOf | MapOf):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value  # which is refused, as a text


def check_names(wanted: Wanted, outputs: Collection[str] | None) -> None:
    """Raise InvalidInput where an output is asked for that there isn't."""
    if wanted.outputs is None or outputs is None:
        return
    for i, name in enumerate(wanted.outputs):
        if name not in outputs:
            raise refused(("outputs", i, "name"), "The model has no output of that name.")


def _tensor(value: Any, at: Path, rest: memoryview) -> tuple[Tensor, memoryview]:
    """The tensor, and the binary data behind its own."""
    if type(value) is not dict:
        raise refused(at, "Expected an object.")
    name = value.get("name")
    if type(name) is not str:
        raise refused((*at, "name"), "Expected a string.")
    datatype = require_datatype(value.get("datatype"), (*at, "datatype"))
    shape = shape_of(value.get("shape"), (*at, "shape"))
    parameters = value.get("parameters")
    if parameters is not None:
        parameters = _object(parameters, (*at, "parameters"))
    size = None if parameters is None else parameters.get("binary_data_size")
    if size is None:
        elements = elements_of_json(datatype, shape, value.get("data"), (*at, "data"))
    else:
        size_at = (*at, "parameters", "binary_data_size")
        if type(size) is not int or not 0 <= size <= rest.nbytes:
            raise refused(size_at, "Expected a number of bytes that are behind the JSON.")
        elements = elements_of_bytes(datatype, shape, rest[:size], size_at)
        rest = rest[size:]
    return Tensor(name, datatype, shape, elements, parameters, at), rest


def _outputs(value: Any, binary: bool) -> dict[str, bool] | None:
    """An empty list is none, as for Triton: all of them are meant."""
    if not value and (value is None or type(value) is list):
        return None
    if type(value) is not list:
        raise refused(("outputs",), "Expected a list.")
    found: dict[str, bool] = {}
    for i, each in enumerate(value):
        at = ("outputs", i)
        if type(each) is not dict or type(each.get("name")) is not str:
            raise refused(at, "Expected an object with a name.")
        if each["name"] in found:
            raise refused((*at, "name"), "The output is asked for already.")
        parameters = _object(each.get("parameters"), (*at, "parameters"))
        for unknown in _NOT_DONE:
            if parameters.get(unknown):
                raise refused((*at, "parameters", unknown), "The gateway has no such extension.")
        found[each["name"]] = _flag(parameters, "binary_data", (*at, "parameters"), binary)
    return found


def _flag(parameters: Mapping[str, Any], name: str, at: Path, default: bool) -> bool:
    value = parameters.get(name)
    if value is None:
        return default
    if type(value) is not bool:
        raise refused((*at, name), "Expected true or false.")
    return value


def _object(value: Any, at: Path) -> Mapping[str, Any]:
    if value is None:
        return {}
    if type(value) is not dict:
        raise refused(at, "Expected an object.")
    return value


def _text_or_none(value: Any, at: Path) -> str | None:
    if value is not None and type(value) is not str:
        raise refused(at, "Expected a string.")
    return value
