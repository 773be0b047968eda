"""Columns of an answer -> the tensors that its signature declares, and others where none does.

A column has the shape [N]. What is null is NaN where fractions are, and None among the elements
else, which JSON can say and binary data can't.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from gateway.contract.answer_text import dumped
from gateway.contract.encoding import COLUMN_DTYPES
from gateway.contract.types import Scalar, TensorOf
from gateway.errors import InvalidModelOutput
from gateway.http.protocols.inference_v2.tensor_specs import JSON, NUMBERS, TEXT, TensorSpec
from gateway.http.protocols.inference_v2.tensors import BYTES, DTYPES, Tensor

_LONG = range(-(2**63), 2**63)


class OutputTensor:
    """Makes the tensor of one declared output."""

    def __init__(self, spec: TensorSpec) -> None:
        self.spec = spec
        self._dtype = _dtype_of(spec)
        is_text = spec.datatype == BYTES
        self._parameters = {"content_type": spec.content_type} if is_text else None
        is_column = not isinstance(spec.field.type, TensorOf) and spec.content_type != JSON
        self.is_flat = len(spec.shape) == 1 and is_column
        """Whether its elements are a column's values as they are."""
        self._heads: dict[int, bytes] = {}

    def head(self, rows: int) -> bytes:
        """Of a flat one of so many elements: its JSON up to its data."""
        head = self._heads.get(rows)
        if head is None:
            spec = self.spec
            said: dict[str, Any] = {"name": spec.name, "datatype": spec.datatype, "shape": [rows]}
            if self._parameters is not None:
                said["parameters"] = self._parameters
            head = self._heads[rows] = orjson.dumps(said)[:-1] + b',"data":'
        return head

    def of(self, values: list[Any]) -> Tensor:
        """The tensor of a column's values, as JSON has them; raises InvalidModelOutput where they
        are ragged."""
        spec, type_ = self.spec, self.spec.field.type
        if self._dtype is not None:
            return self._of_numbers(values, self._dtype)
        shape: tuple[int, ...] = (len(values),)
        if isinstance(type_, TensorOf):
            values, shape = _flat(values, type_)
            if type_.dtype.kind == "O":
                return _anything(spec.name, values, shape)
        if spec.content_type == JSON:
            values = [None if value is None else _json(value) for value in values]
        return Tensor(spec.name, BYTES, shape, values, self._parameters)

    def _of_numbers(self, values: list[Any], dtype: np.dtype[Any]) -> Tensor:
        spec = self.spec
        if len(spec.shape) == 1:
            return Tensor(spec.name, spec.datatype, (len(values),), values)
        try:
            array = np.array(values, dtype)
        except ValueError:
            raise _ragged(spec.name) from None
        if not values:
            array = array.reshape(0, *(max(size, 0) for size in spec.shape[1:]))
        return Tensor(spec.name, spec.datatype, array.shape, array.ravel())


def undeclared_tensor(name: str, values: list[Any]) -> Tensor:
    """The tensor of a column that no signature declares, by what is in it."""
    kinds = set(map(type, values))
    if kinds == {bool}:
        return _numbers(name, "BOOL", values)
    if kinds == {int} and min(values) in _LONG and max(values) in _LONG:
        return _numbers(name, "INT64", values)
    if float in kinds and kinds <= {int, float, type(None)}:
        return _numbers(name, "FP64", values)
    if kinds == {list}:
        return _of_lists(name, values)
    return _anything(name, values, (len(values),))


def _of_lists(name: str, values: list[Any]) -> Tensor:
    """Lists of fractions of one shape as one tensor, such as embeddings are; others as JSON."""
    try:
        array = np.array(values)
    except ValueError:  # ragged
        return _anything(name, values, (len(values),))
    if array.dtype != np.float64:
        return _anything(name, values, (len(values),))
    return Tensor(name, "FP64", array.shape, array.ravel())


def _numbers(name: str, datatype: str, values: list[Any]) -> Tensor:
    return Tensor(name, datatype, (len(values),), np.array(values, DTYPES[datatype]))


def _anything(name: str, values: list[Any], shape: tuple[int, ...]) -> Tensor:
    """Texts as they are, and all else as JSON."""
    if set(map(type, values)) <= {str}:
        return Tensor(name, BYTES, shape, values, {"content_type": TEXT})
    return Tensor(name, BYTES, shape, list(map(_json, values)), {"content_type": JSON})


def _json(value: Any) -> str:
    return dumped(value).decode()


def _dtype_of(spec: TensorSpec) -> np.dtype[Any] | None:
    """What the elements are an array of; None for BYTES."""
    type_ = spec.field.type
    if spec.content_type != NUMBERS:
        return None
    if isinstance(type_, TensorOf):
        return DTYPES[spec.datatype]
    assert isinstance(type_, Scalar)
    return COLUMN_DTYPES[type_.kind]


def _flat(values: list[Any], type_: TensorOf) -> tuple[list[Any], tuple[int, ...]]:
    """The elements of nested lists of one shape, and that."""
    shape = [len(values)]
    for inner in type_.inner:
        sizes = {len(value) for value in values}
        if len(sizes) > 1:
            raise _ragged("output")
        shape.append(sizes.pop() if sizes else max(inner, 0))
        values = [item for value in values for item in value]
    return values, tuple(shape)


def _ragged(name: str) -> InvalidModelOutput:
    return InvalidModelOutput(
        f"The rows of the output {name!r} have different shapes, and are no tensor."
    )
