"""Tensors of the Open Inference Protocol, from and to JSON and bytes; what a model makes of them is
`input_columns`' matter.

The specification's data types, and BF16, which Triton's clients know too. Binary data are Triton's
extension (docs/protocol/extension_binary_data.md): little-endian, row major, without padding; an
element of BYTES is its length in four bytes, and itself.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any, TypeAlias

import numpy as np

from gateway.contract.text_formats import pointer
from gateway.contract.validation import Path
from gateway.errors import InvalidInput, Violation

BYTES = "BYTES"
_BOOL, _BF16 = "BOOL", "BF16"

DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype("<f4"),  # NumPy has none: the upper half of a float32
}
"""The data types of numbers and truth values, and what they are in this process."""

DATATYPES: Mapping[np.dtype[Any], str] = {
    dtype: name for name, dtype in DTYPES.items() if name != _BF16
}

Elements: TypeAlias = np.ndarray | list[Any]
"""The elements of a tensor in row-major order: an array, a masked one where some are null, or a
list: of BYTES always (texts, bytes and None), and of few numbers, for which that is the faster."""

_FRACTIONS = frozenset({"FP16", "FP32", "FP64", "BF16"})
_BOUNDS = {
    name: (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    for name, dtype in DTYPES.items()
    if dtype.kind in "iu"
}
_TEXTS, _BOOLS, _WHOLE, _NUMBERS = frozenset({str}), {bool}, {int}, {int, float}
_LENGTH = struct.Struct("<I")
_FEW = 64


@dataclass(slots=True)
class Tensor:
    """A tensor; `at` is where it is in the request, for pointers."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    elements: Elements
    parameters: Mapping[str, Any] | None = None
    at: Path = ()


def refused(path: Path, message: str) -> InvalidInput:
    """The refusal of what is at a path of the request."""
    return InvalidInput((Violation(pointer=pointer(path), message=message),))


def has_fractions(datatype: str) -> bool:
    """Whether elements of the datatype are floating-point numbers."""
    return datatype in _FRACTIONS


def elements_of_json(datatype: str, shape: tuple[int, ...], data: Any, at: Path) -> Elements:
    """The elements that JSON's `data` has, flat or nested as the shape is; raises InvalidInput."""
    if type(data) is not list:
        raise refused(at, "Expected a list.")
    if data and type(data[0]) is list:
        data = _flat(data, shape, at)
    if len(data) != prod(shape):
        raise refused(at, f"Expected {prod(shape)} elements, as the shape says.")
    kinds = set(map(type, data))
    if type(None) in kinds:
        return _with_nulls(datatype, data, at)
    elements = _typed(datatype, data, kinds)
    if elements is None:
        raise _misfit(datatype, data, at)
    return elements


def elements_of_bytes(
    datatype: str, shape: tuple[int, ...], data: memoryview, at: Path
) -> Elements:
    """The elements that binary data have; raises InvalidInput."""
    count = prod(shape)
    if datatype == BYTES:
        return _texts(data, count, at)
    stored = np.dtype("<u2") if datatype == _BF16 else DTYPES[datatype]
    if data.nbytes != count * stored.itemsize:
        size = count * stored.itemsize
        raise refused(at, f"Expected {size} bytes of data, as the shape and the datatype say.")
    if datatype == _BOOL:
        octets = np.frombuffer(data, np.uint8)
        if octets.size and octets.max() > 1:
            raise refused(at, "Expected bytes that are 0 or 1.")
        return octets.view(np.bool_)
    array = np.frombuffer(data, stored)
    if datatype == _BF16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def bytes_of(elements: Elements) -> bytes:
    """The elements as binary data, of BYTES where they are a list; none of them is null."""
    if isinstance(elements, np.ndarray):
        dtype = elements.dtype.newbyteorder("<")
        return elements.astype(dtype, copy=False).tobytes()
    parts = []
    for value in elements:
        octets = value.encode() if isinstance(value, str) else value
        parts.append(_LENGTH.pack(len(octets)))
        parts.append(octets)
    return b"".join(parts)


def _flat(data: list[Any], shape: tuple[int, ...], at: Path) -> list[Any]:
    """The elements of lists that are nested as the shape says."""
    level = [data]
    for size in shape:
        if any(type(each) is not list or len(each) != size for each in level):
            raise refused(at, "Expected a flat list, or lists that are nested as the shape says.")
        level = list(chain.from_iterable(level))
    return level


def _typed(datatype: str, values: list[Any], kinds: set[type]) -> Elements | None:
    """The values as the datatype has them; None where one of them is none of its."""
    if datatype == BYTES:
        return values if kinds <= _TEXTS else None
    if datatype == _BOOL:
        if kinds <= _BOOLS:
            return values
        is_bool = kinds <= {bool, int} and set(values) <= {0, 1}
        return list(map(bool, values)) if is_bool else None
    if not kinds <= _NUMBERS:
        return None
    if datatype in _FRACTIONS:
        return _fractions(datatype, values)
    return _whole(datatype, values, kinds)


def _fractions(datatype: str, values: list[Any]) -> Elements | None:
    """JSON has no number that isn't finite; a narrower datatype may not have all of them."""
    dtype = DTYPES[datatype]
    if dtype.itemsize == np.dtype(np.float64).itemsize:
        return values if len(values) <= _FEW else np.array(values, dtype)
    with np.errstate(over="ignore"):
        array = np.array(values, np.float64).astype(dtype)
    if not np.isfinite(array).all():
        return None
    return array.tolist() if len(values) <= _FEW else array


def _whole(datatype: str, values: list[Any], kinds: set[type]) -> Elements | None:
    if not kinds <= _WHOLE:
        if not all(type(value) is int or value.is_integer() for value in values):
            return None
        values = list(map(int, values))
    low, high = _BOUNDS[datatype]
    if values and not (low <= min(values) and max(values) <= high):
        return None
    return values if len(values) <= _FEW else np.array(values, DTYPES[datatype])


def _with_nulls(datatype: str, values: list[Any], at: Path) -> Elements:
    present = [value for value in values if value is not None]
    elements = _typed(datatype, present, set(map(type, present)))
    if elements is None:
        raise _misfit(datatype, values, at)
    if datatype == BYTES:
        return values
    gone = np.array([value is None for value in values])
    filled = np.zeros(len(values), DTYPES[datatype])
    filled[~gone] = elements
    masked: np.ndarray = np.ma.masked_array(filled, gone)
    return masked


def _misfit(datatype: str, values: list[Any], at: Path) -> InvalidInput:
    """Which elements are none of the datatype's."""
    wrong = (i for i, value in enumerate(values) if not _is_element(datatype, value))
    message = f"Expected an element of {datatype}."
    return InvalidInput(tuple(Violation(pointer=pointer((*at, i)), message=message) for i in wrong))


def _is_element(datatype: str, value: Any) -> bool:
    return value is None or _typed(datatype, [value], {type(value)}) is not None


def _texts(data: memoryview, count: int, at: Path) -> list[bytes]:
    """The elements of BYTES in binary data."""
    expected = refused(at, f"Expected {count} elements of BYTES, each after its length.")
    size, start = data.nbytes, 0
    if count * _LENGTH.size > size:
        raise expected
    octets, found = bytes(data), list[bytes]()
    while len(found) < count and start + _LENGTH.size <= size:
        begin = start + _LENGTH.size
        start = begin + _LENGTH.unpack_from(octets, start)[0]
        found.append(octets[begin:start])
    if len(found) < count or start != size:
        raise expected
    return found


def require_datatype(value: Any, at: Path) -> str:
    """A datatype's name; raises InvalidInput."""
    if type(value) is not str or (value != BYTES and value not in DTYPES):
        raise refused(at, f"Expected one of {', '.join((*DTYPES, BYTES))}.")
    return value


def shape_of(value: Any, at: Path) -> tuple[int, ...]:
    """A tensor's shape, of whole numbers that aren't negative; raises InvalidInput."""
    if type(value) is not list or not all(type(size) is int and size >= 0 for size in value):
        raise refused(at, "Expected a list of whole numbers from 0.")
    return tuple(value)
