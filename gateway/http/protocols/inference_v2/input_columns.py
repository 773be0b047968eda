"""Tensors of a request -> columns by the names of a signature, which `gateway.contract.columns`
checks.

No row is made on the way: an array of numbers stays one. Columns may be sent as [N] and as [N, 1],
as pandas' codecs do; null is NaN where fractions are expected, as it is in answers. Content types
are MLServer's (`tensor_specs`): honoured, and not needed, because the signature says what elements
of BYTES mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson

from gateway.contract.columns import Column, Places
from gateway.contract.text_formats import pointer, read_base64
from gateway.contract.types import Rows, Scalar, TensorOf, Type, depth
from gateway.contract.validation import Path
from gateway.errors import InvalidInput, Violation
from gateway.http.protocols.inference_v2.tensor_specs import (
    BASE64,
    JSON,
    MOMENT,
    NUMBERS,
    TEXT,
    TensorSpec,
    input_specs,
)
from gateway.http.protocols.inference_v2.tensors import BYTES, Tensor, has_fractions, refused

_USUAL = frozenset({NUMBERS, "pd", "dict"})
_MEANINGS = {TEXT: TEXT, BASE64: BASE64, MOMENT: MOMENT, JSON: JSON, "json": JSON}
CONTENT_TYPES = tuple(sorted({*_USUAL, *_MEANINGS}))


class TensorPlaces(Places):
    """Where cells are in a request whose columns are its tensors."""

    params = ("parameters",)

    def __init__(self, at: dict[str, Path]) -> None:
        self._at = at

    def cell(self, name: str, row: int) -> Path:
        """An element, of those that JSON has in a flat list."""
        return (*self.column(name), "data", row)

    def column(self, name: str) -> Path:
        """A tensor, or the list where one is missing."""
        return self._at.get(name, ("inputs",))


class InputColumns:
    """Reads the tensors of requests for the inputs of one contract."""

    def __init__(self, inputs: Rows) -> None:
        specs = input_specs(inputs)
        self._named = inputs.named
        self._count = len(specs)
        self._required = [s.name for s in specs if inputs.named and s.field.required]
        self._by_name = {spec.name: spec for spec in specs}
        if not inputs.named:  # a DataFrame without names has columns that are called so
            self._by_name.update((spec.field.name, spec) for spec in specs)
        self._only = None if inputs.named or len(specs) > 1 else specs[0]

    def read(
        self, tensors: Sequence[Tensor], meaning: str | None
    ) -> tuple[dict[str, Column], int, Places]:
        """The columns, the number of rows, and where all of it is; raises InvalidInput.

        `meaning` is the content type of the request, for tensors that have none of their own. In
        the order of the signature, where that has no names.
        """
        if not tensors:
            raise refused(("inputs",), "Expected at least one tensor.")
        if len(tensors) == 1 and self._is_matrix(tensors[0]):
            tensors = _split(tensors[0])
        rows = _rows(tensors)
        columns: dict[str, Column] = {}
        found: list[Violation] = []
        for tensor in tensors if self._named else self._in_order(tensors):
            if tensor.name in columns:
                message = "There is a tensor of that name already."
                found.append(Violation(pointer=pointer((*tensor.at, "name")), message=message))
                continue
            spec = self._only or self._by_name.get(tensor.name)
            if spec is None and self._named:
                message = "The model has no input of that name."
                found.append(Violation(pointer=pointer((*tensor.at, "name")), message=message))
                continue
            try:
                if len(tensors) == 1 or self._only is None:  # else it is a column of the only one
                    _require_shape(spec, tensor)
                columns[tensor.name] = _column(spec, tensor, meaning)
            except InvalidInput as error:
                columns[tensor.name] = []
                found += error.violations
        found += [
            Violation(pointer="/inputs", message=f"Required, and missing: {name!r}.")
            for name in self._required
            if name not in columns
        ]
        if found:
            raise InvalidInput(tuple(found))
        return columns, rows, TensorPlaces({tensor.name: tensor.at for tensor in tensors})

    def _is_matrix(self, tensor: Tensor) -> bool:
        """Whether a tensor is all columns of a signature that has no names for them."""
        if self._named or self._count == 1 or tensor.name in self._by_name:
            return False
        return len(tensor.shape) == 2 and tensor.shape[1] == self._count

    def _in_order(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """As the signature has them; what has other names stays as it came."""
        if any(tensor.name not in self._by_name for tensor in tensors):
            return tensors
        return sorted(tensors, key=lambda tensor: int(self._by_name[tensor.name].field.name))


def _rows(tensors: Sequence[Tensor]) -> int:
    for tensor in tensors:
        if not tensor.shape:
            raise refused((*tensor.at, "shape"), "Expected a shape that begins with the rows.")
        if tensor.shape[0] != tensors[0].shape[0]:
            raise refused((*tensor.at, "shape", 0), "Expected as many rows in every tensor.")
    return tensors[0].shape[0]


def _require_shape(spec: TensorSpec | None, tensor: Tensor) -> None:
    """Raise InvalidInput where a tensor of scalars, or a tensor's rows, has another shape."""
    if spec is None or not isinstance(spec.field.type, Scalar | TensorOf):
        return
    _, *inner = spec.shape
    given = tensor.shape[1:]
    is_row = len(given) == len(inner) and all(
        want in (-1, have) for want, have in zip(inner, given, strict=True)
    )
    if not is_row and (inner, given) not in (([], (1,)), ([1], ())):
        raise refused((*tensor.at, "shape"), f"Expected the shape {[-1, *inner]}.")


def _split(matrix: Tensor) -> list[Tensor]:
    """The columns of a matrix as tensors, called by their numbers."""
    rows, count = matrix.shape
    elements = matrix.elements
    return [
        Tensor(
            name=str(i),
            datatype=matrix.datatype,
            shape=(rows,),
            elements=elements[i::count],
            parameters=matrix.parameters,
            at=matrix.at,
        )
        for i in range(count)
    ]


def _column(spec: TensorSpec | None, tensor: Tensor, of_request: str | None) -> Column:
    """A tensor as a column of the type, or as it is, where the signature has none of that name."""
    meaning = _meaning(tensor, of_request)
    if spec is None:
        return tensor.elements[: tensor.shape[0]]
    type_, elements, shape = spec.field.type, tensor.elements, tensor.shape
    if tensor.datatype == BYTES:
        assert isinstance(elements, list)
        elements = _read(elements, spec, meaning, tensor)
    elif isinstance(elements, np.ma.MaskedArray) and has_fractions(tensor.datatype):
        elements = _with_nan(type_, elements)
    if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1 and _row_depth(type_, tensor) == 0):
        return elements
    if isinstance(elements, np.ndarray):
        return elements.reshape(shape)
    return _nested(elements, shape)


def _row_depth(type_: Type, tensor: Tensor) -> int:
    """How many dimensions a row of the tensor has at least: where JSON says it all, none."""
    if isinstance(type_, TensorOf):
        return len(type_.inner)
    is_json = tensor.datatype == BYTES and not isinstance(type_, Scalar)
    return 0 if is_json else depth(type_)


def _with_nan(type_: Type, elements: np.ma.MaskedArray[Any, Any]) -> np.ndarray:
    takes_nan = isinstance(type_, Scalar) and type_.kind in ("float", "double")
    if takes_nan or (isinstance(type_, TensorOf) and type_.dtype.kind == "f"):
        return elements.filled(np.nan)
    return elements


def _nested(elements: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """Lists within lists, of the elements in row-major order."""
    for size in reversed(shape[1:]):
        count = len(elements) // size if size else 0
        elements = [elements[i * size : (i + 1) * size] for i in range(count)]
    return elements


def _meaning(tensor: Tensor, of_request: str | None) -> str | None:
    """What elements of BYTES mean by the tensor's content type, or else the request's; None is
    what the signature says."""
    own = tensor.parameters.get("content_type") if tensor.parameters else None
    if own is None:
        return None if of_request is None else _MEANINGS.get(of_request)
    return checked_content_type(own, (*tensor.at, "parameters", "content_type"))


def checked_content_type(value: Any, at: Path) -> str | None:
    """What elements of BYTES mean by a content type; raises InvalidInput for an unknown one."""
    if not isinstance(value, str) or value not in CONTENT_TYPES:
        raise refused(at, f"Expected one of {', '.join(CONTENT_TYPES)}.")
    return _MEANINGS.get(value)


def _read(elements: list[Any], spec: TensorSpec, meaning: str | None, tensor: Tensor) -> list[Any]:
    """The elements of BYTES as values that a column is checked by."""
    takes_bytes = spec.content_type == BASE64
    if meaning is None:
        if takes_bytes:  # base64 where JSON is, themselves where bytes are
            return _each(elements, _binary, "bytes as a base64 string", tensor)
        meaning = TEXT if _is_native(spec.field.type, tensor) else spec.content_type
    if meaning == JSON:
        return _each(elements, orjson.loads, "a JSON text (the content type is pd_json)", tensor)
    if meaning == BASE64:
        elements = _each(elements, _unpacked, "bytes as a base64 string", tensor)
    if takes_bytes:
        return [each.encode() if isinstance(each, str) else each for each in elements]
    if set(map(type, elements)) <= {str}:
        return elements
    return _each(elements, _text, "text in UTF-8", tensor)


def _is_native(type_: Type, tensor: Tensor) -> bool:
    """Whether the rows of a tensor are lists by its own shape, and not by JSON."""
    shape = tensor.shape
    return not isinstance(type_, TensorOf) and len(shape) > 1 and shape[1] != 1


def _each(
    elements: list[Any], read: Callable[[Any], Any], expected: str, tensor: Tensor
) -> list[Any]:
    """What is read of each element that isn't null; raises InvalidInput with their places."""
    found: list[Any] = []
    wrong = []
    for i, each in enumerate(elements):
        try:
            found.append(None if each is None else read(each))
        except ValueError:
            wrong.append(i)
            if len(wrong) >= InvalidInput.MAX_VIOLATIONS:
                break
    if wrong:
        places = (pointer((*tensor.at, "data", i)) for i in wrong)
        message = f"Expected {expected}."
        raise InvalidInput(tuple(Violation(pointer=place, message=message) for place in places))
    return found


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _binary(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else read_base64(value)


def _unpacked(value: str | bytes) -> bytes:
    return read_base64(_text(value))
