"""The tensors of a signature: what the Open Inference Protocol's metadata say of a model, and by
which names and types requests and answers are read and written.

As MLServer's runtime for MLflow has it (mlserver_mlflow/metadata.py), but that columns have the
shape [N] and not [N, 1]: a tensor of a signature is one; a column is one of a datatype, or of BYTES
in a content type of MLServer's codecs; what has no name is `input-0`, `output-0` and so on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gateway.contract.types import AnyValue, Field, Rows, Scalar, TensorOf, Type
from gateway.http.protocols.inference_v2.tensors import BYTES, DATATYPES

NUMBERS, TEXT, BASE64, MOMENT, JSON = "np", "str", "base64", "datetime", "pd_json"
"""Content types of MLServer's codecs: what elements of a tensor mean."""

_SCALARS = {
    "boolean": ("BOOL", NUMBERS),
    "integer": ("INT32", NUMBERS),
    "long": ("INT64", NUMBERS),
    "float": ("FP32", NUMBERS),
    "double": ("FP64", NUMBERS),
    "string": (BYTES, TEXT),
    "binary": (BYTES, BASE64),
    "datetime": (BYTES, MOMENT),
}
_TENSORS = {"U": (BYTES, TEXT), "O": (BYTES, TEXT), "S": (BYTES, BASE64), "M": (BYTES, MOMENT)}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """A tensor of a model, -1 is a free dimension; `field` is of the contract."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    content_type: str
    field: Field


def input_specs(rows: Rows) -> tuple[TensorSpec, ...]:
    """The tensors of what a model takes."""
    return _specs(rows, "input")


def output_specs(rows: Rows | None) -> tuple[TensorSpec, ...]:
    """The tensors of what it gives; none where that isn't declared."""
    return () if rows is None else _specs(rows, "output")


def _specs(rows: Rows, prefix: str) -> tuple[TensorSpec, ...]:
    return tuple(_spec(f, f.name if rows.named else f"{prefix}-{f.name}") for f in rows.fields)


def _spec(field: Field, name: str) -> TensorSpec:
    datatype, content_type = _kind(field.type)
    shape = field.type.shape if isinstance(field.type, TensorOf) else (-1,)
    return TensorSpec(
        name=name, datatype=datatype, shape=shape, content_type=content_type, field=field
    )


def _kind(type_: Type) -> tuple[str, str]:
    match type_:
        case Scalar(kind):
            return _SCALARS[kind]
        case TensorOf(dtype) if dtype.kind in _TENSORS:
            return _TENSORS[dtype.kind]
        case TensorOf(dtype):
            return DATATYPES.get(dtype.newbyteorder("<"), DATATYPES[np.dtype("<f8")]), NUMBERS
        case _:
            return BYTES, JSON


def takes_any_value(type_: Type) -> bool:
    """Whether numbers and texts mean themselves, too, where JSON is expected."""
    return isinstance(type_, AnyValue)
