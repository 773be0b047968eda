"""Cells by their declared type -> Arrow arrays that a Parquet file takes.

What the signature types is typed: scalars, lists, objects, maps, tensors (nested lists). Where it
says "anything" somewhere inside, or an object may have more members than are declared, the whole
cell is JSON text. Takes cells as the model got them (`gateway.contract.frames`) and as an answer
has them (`Contract.columns`): NaN for a text is null, bytes and moments may be texts. Inside of
lists and objects both stay texts, as in JSON.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import orjson

from gateway.contract.text_formats import read_base64
from gateway.contract.types import (
    AnyValue,
    ArrayOf,
    MapOf,
    ObjectOf,
    Scalar,
    TensorOf,
    TextOrTexts,
    TupleOf,
    Type,
)

Cells: TypeAlias = np.ndarray | list[Any]

JSON = AnyValue()
"""The type of a column of JSON texts."""

_NUMBERS = "biuf"


def arrow_type(type_: Type) -> Any:
    """The `pyarrow.DataType` of a column of the type."""
    import pyarrow as pa

    if is_text(type_):
        return pa.string()
    if isinstance(type_, Scalar) and type_.kind == "binary":
        return pa.binary()
    if isinstance(type_, Scalar) and type_.kind == "datetime":
        return pa.timestamp("ns")
    return _inner(type_)


def is_text(type_: Type) -> bool:
    """Whether a cell of the type is JSON text."""
    match type_:
        case AnyValue() | TupleOf() | TextOrTexts():
            return True
        case TensorOf(dtype):
            return dtype.kind == "O"
        case ArrayOf(inner) | MapOf(inner):
            return is_text(inner)
        case ObjectOf(fields, extras):
            # Parquet has no object without members.
            return extras == "kept" or not fields or any(is_text(each.type) for each in fields)
        case _:
            return False


def arrow_array(parts: Sequence[Cells], type_: Type, *, nullable: bool) -> Any:
    """One column of the cells of all parts, in their order; raises what PyArrow and NumPy do.

    A NaN is null where the column is `nullable`: callers can't tell them apart.
    """
    import pyarrow as pa

    wanted = arrow_type(type_)
    is_tensor = isinstance(type_, TensorOf) and type_.dtype.kind in _NUMBERS
    if is_tensor:
        parts = [_stacked(each) for each in parts]
    arrays = [each for each in parts if isinstance(each, np.ndarray) and each.dtype.kind != "O"]
    if len(arrays) == len(parts) and arrays:
        if isinstance(type_, TensorOf) and is_tensor:
            return pa.concat_arrays([_nested(each, type_) for each in arrays])
        alike = len({(each.dtype, each.shape[1:]) for each in arrays}) == 1
        if alike and arrays[0].ndim == 1 and isinstance(type_, Scalar):
            joined = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
            made = pa.array(joined, from_pandas=nullable)
            return made if made.type == wanted else made.cast(wanted)
    cells = [cell for part in parts for cell in _listed(part)]
    return pa.array(list(map(_taken(type_, nullable), cells)), type=wanted)


def json_text(value: Any) -> str | None:
    """A cell as JSON; what JSON has no word for is its text."""
    if value is None:
        return None
    try:
        return orjson.dumps(value, _said, orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # a whole number of more than 64 bits
        return json.dumps(_without_nan(value), default=_said, ensure_ascii=False)


def _said(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, np.ndarray) and value.dtype.kind in "Mm":
        return list(value)
    if isinstance(value, np.datetime64 | np.timedelta64):
        return None if np.isnat(value) else str(value)
    if isinstance(value, dt.date):
        return value.isoformat()
    # Not as orjson has NumPy's: the shortest text of a number of 32 bits is another one of 64.
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def _without_nan(value: Any) -> Any:
    """As orjson has it: JSON has no word for it."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {name: _without_nan(each) for name, each in value.items()}
        case list() | tuple():
            return [_without_nan(each) for each in value]
        case np.ndarray() | np.floating():
            return _without_nan(value.tolist())
    return value


def _stacked(cells: Cells) -> Cells:
    """Arrays that are alike, one to a row, as one array."""
    if isinstance(cells, np.ndarray) or not all(isinstance(each, np.ndarray) for each in cells):
        return cells
    alike = len({(each.shape, each.dtype) for each in cells}) == 1
    return np.stack(cells) if alike else [each.tolist() for each in cells]


def _nested(array: np.ndarray, type_: TensorOf) -> Any:
    """Rows of an array as lists in lists."""
    import pyarrow as pa

    made = pa.array(np.ascontiguousarray(array, type_.dtype).reshape(-1))
    for axis in range(array.ndim - 1, 0, -1):
        size, rows = array.shape[axis], math.prod(array.shape[:axis])
        offsets = pa.array(np.arange(rows + 1, dtype=np.int64) * size)
        made = pa.LargeListArray.from_arrays(offsets, made)
    return made


def _listed(part: Cells) -> list[Any]:
    """As Python values; moments stay NumPy's, which have the nanoseconds."""
    if isinstance(part, np.ndarray):
        return list(part) if part.dtype.kind in "Mm" else part.tolist()
    return part


def _taken(type_: Type, nullable: bool) -> Callable[[Any], Any]:
    """How a cell becomes what `pa.array` takes for the type."""
    if is_text(type_):
        return _text if isinstance(type_, TextOrTexts) else _json_or_null
    match type_:
        case Scalar("binary"):
            return lambda cell: read_base64(cell) if isinstance(cell, str) else cell
        case Scalar("datetime"):
            return _moment
        case Scalar("string"):
            return _null_or_itself
        case Scalar("float" | "double") if not nullable:
            return _itself
        case Scalar():
            return _null_or_itself
        case _:
            return _plain_inner(type_)


def _itself(cell: Any) -> Any:
    return cell


def _null_or_itself(cell: Any) -> Any:
    return None if isinstance(cell, float) and math.isnan(cell) else cell


def _json_or_null(cell: Any) -> str | None:
    return json_text(_null_or_itself(cell))


def _text(cell: Any) -> str | None:
    """A text as it is, and a list of them as JSON."""
    cell = _null_or_itself(cell)
    return cell if isinstance(cell, str) else json_text(cell)


def _moment(cell: Any) -> Any:
    if isinstance(cell, dt.datetime) and cell.tzinfo is not None:
        cell = cell.astimezone(dt.UTC).replace(tzinfo=None)
    return cell if cell is None else np.datetime64(cell, "ns")


def _plain_inner(type_: Type) -> Callable[[Any], Any]:
    """The same inside of lists and objects, where bytes and moments are texts."""
    match type_:
        case Scalar("binary" | "datetime" | "string"):
            return _as_text
        case ArrayOf(Scalar("boolean" | "integer" | "long" | "float" | "double")):
            return _null_or_itself
        case TensorOf(dtype) if dtype.kind in _NUMBERS:
            return _null_or_itself
        case ArrayOf(items):
            each = _plain_inner(items)
            return lambda cell: None if _is_gone(cell) else [each(item) for item in cell]
        case MapOf(values):
            of_map = _plain_inner(values)
            return lambda cell: (
                None if _is_gone(cell) else [(name, of_map(item)) for name, item in cell.items()]
            )
        case ObjectOf(fields):
            members = [(field.name, _plain_inner(field.type)) for field in fields]
            return lambda cell: (
                None
                if _is_gone(cell)
                else {name: how(cell[name]) for name, how in members if name in cell}
            )
        case TensorOf(_, shape):
            how: Callable[[Any], Any] = _as_text
            for _ in shape[1:]:
                how = _in_list(how)
            return how
        case _:
            return _null_or_itself


def _in_list(each: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda cell: None if _is_gone(cell) else [each(item) for item in cell]


def _is_gone(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _as_text(cell: Any) -> str | None:
    if _is_gone(cell) or isinstance(cell, str):
        return None if _is_gone(cell) else cell
    return base64.b64encode(cell).decode("ascii") if isinstance(cell, bytes) else str(cell)


def _inner(type_: Type) -> Any:
    import pyarrow as pa

    match type_:
        case Scalar(kind):
            numbers = {
                "boolean": pa.bool_(),
                "integer": pa.int32(),
                "long": pa.int64(),
                "float": pa.float32(),
                "double": pa.float64(),
            }
            return numbers.get(kind, pa.string())
        case ArrayOf(items):
            return pa.list_(_inner(items))
        case MapOf(values):
            return pa.map_(pa.string(), _inner(values))
        case ObjectOf(fields):
            return pa.struct([(field.name, _inner(field.type)) for field in fields])
        case TensorOf(dtype, shape):
            made = pa.from_numpy_dtype(dtype) if dtype.kind in _NUMBERS else pa.string()
            for _ in shape[1:]:
                made = pa.large_list(made)
            return made
    return pa.string()
