"""A model's answer -> plain values: without any class that only the model's own process knows.

What is plain is told by the exact type: Python's own values, NumPy's own scalars, and arrays of
these. So an answer can be written (`values`) and read by a process that has no other package. What
it means by the signature is the gateway's to say (`gateway.contract.rendering`).

What a model answers later is waited for: a coroutine, a generator of either kind. Tables of Arrow
and Polars are told by the names of their packages, which may not be there; arrays of whatever
package by NumPy's own protocol for them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import decimal
import enum
import inspect
import json
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MappingView
from typing import Any

import numpy as np
import pandas as pd

from .answers import Alone, ByColumn

_ALONE = ("alone",)


class UnsupportedOutput(Exception):
    """The model answered something that has no plain form."""


def plain_output(answer: Any) -> tuple[Any, ...]:
    """A model's answer as `("columns", names, columns)` or `("values", values)`; a dict is one
    value (`answers` tells what is columns). Behind these is what else it was
    (`gateway.contract.outputs.Mark`).

    Raises UnsupportedOutput for what has no plain form.
    """
    try:
        return _plain_output(answer)
    except RecursionError:
        raise UnsupportedOutput("the model's answer is nested too deep, or holds itself") from None


def plain_value(value: Any) -> Any:
    """One value in plain form. Raises UnsupportedOutput."""
    try:
        return _plain_value(value)
    except RecursionError:
        raise UnsupportedOutput("the model's answer is nested too deep, or holds itself") from None


def one_answer(answer: Any) -> tuple[Any, ...]:
    """The answer to one object, as `("values", [answer])`: the object itself, also where a model
    answers with a list of one, as if it had been a table. Raises UnsupportedOutput."""
    if isinstance(answer, pd.DataFrame):
        answer = answer.to_dict("records")
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    return ("values", [plain_value(answer)])


def _plain_output(answer: Any) -> tuple[Any, ...]:
    answer = settled(answer)
    table = _columns_of_others(answer)
    if table is not None:
        return ("columns", [_name(name) for name in table], list(table.values()))
    if isinstance(answer, pd.DataFrame):
        if not answer.shape[1]:  # columns would forget how many rows there are
            return ("values", [{} for _ in range(len(answer))])
        columns = [_plain_series(answer.iloc[:, i]) for i in range(answer.shape[1])]
        return ("columns", [_name(name) for name in answer.columns], columns)
    if isinstance(answer, pd.Series):  # a table of one column, as MLflow's own server has it
        name = 0 if answer.name is None else answer.name
        return ("columns", [_name(name)], [_plain_series(answer)])
    if isinstance(answer, _OF_PANDAS):
        return ("values", _plain_column(answer))
    if isinstance(answer, ByColumn):
        columns = [_plain_value(column) for column in answer.columns]
        names = [_name(name) for name in answer.names]
        return ("columns", names, columns, *([("dict",)] if answer.is_dict else []))
    if isinstance(answer, (list, tuple)):
        values = [_plain_value(value) for value in answer]
        return ("values", values, *([_ALONE] if isinstance(answer, Alone) else []))
    array = _array_of_others(answer)
    if array is not None:
        return ("values", array)
    array = _array_in(answer)
    if array is not None and array.ndim:
        return ("values", _plain_array(array))
    return ("values", [_plain_value(answer)], _ALONE)


def settled(answer: Any) -> Any:
    """The answer once it is there: of a coroutine what it returns, of a generator a list of what it
    yields. What may be columns in a dict is of NumPy, whatever package it came from."""
    answer = _awaited(answer)
    if type(answer) is dict:
        return {name: _column_of_others(each) for name, each in answer.items()}
    return list(answer) if _is_list_of_its_own(answer) else answer


def _column_of_others(value: Any) -> Any:
    """An array of Arrow or a series of Polars as one of NumPy; all else as it is."""
    column = _array_of_others(value)
    if not isinstance(column, list):
        return value if column is None else column
    array: Any = np.empty(len(column), dtype=object)
    for i, each in enumerate(column):  # NumPy would look into lists
        array[i] = each
    return array


def _awaited(answer: Any) -> Any:
    """What comes of an answer that is computed when it is waited for."""
    while inspect.isawaitable(answer):
        answer = _loop().run_until_complete(_result_of(answer))
    if inspect.isasyncgen(answer):
        return _loop().run_until_complete(_items_of(answer))
    return answer


_kept = threading.local()


def _loop() -> Any:
    """This thread's event loop, one for all calls: what a model keeps is bound to it."""
    if not hasattr(_kept, "loop"):
        _kept.loop = asyncio.new_event_loop()
    return _kept.loop


async def _result_of(awaitable: Any) -> Any:
    return await awaitable


async def _items_of(items: Any) -> list[Any]:
    return [item async for item in items]


def _is_list_of_its_own(value: Any) -> bool:
    """Whether it gives one value after the other, and is no list: a generator, but no file."""
    if isinstance(value, (range, deque, MappingView)):
        return True
    return isinstance(value, Iterator) and not hasattr(value, "read")


def _package(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _columns_of_others(value: Any) -> dict[Any, Any] | None:
    """The columns of a table of Arrow or Polars by their names; None of all else."""
    package = _package(value)
    if package == "pyarrow" and hasattr(value, "column_names"):
        columns = zip(value.column_names, value.columns)
    elif package == "polars" and hasattr(value, "get_columns"):
        columns = zip(value.columns, value.get_columns())
    elif package == "polars" and hasattr(value, "collect"):
        return _columns_of_others(value.collect())
    else:
        return None
    found: dict[Any, Any] = {}
    for name, column in columns:
        if name in found:
            raise UnsupportedOutput("the model answered a table with two columns of one name")
        found[name] = _array_of_others(column)
    return found


_SIZES = (8, 16, 32, 64)
_NUMBERS = {"bool", "float", "double", "Boolean", "Float32", "Float64"}
_NUMBERS |= {f"{kind}{size}" for kind in ("int", "uint", "Int", "UInt") for size in _SIZES}
"""Types that NumPy has, as Arrow and Polars call them."""


def _array_of_others(value: Any) -> Any:
    """The values of an array of Arrow or a series of Polars; None of all else."""
    package = _package(value)
    if package == "pyarrow" and hasattr(value, "to_pylist") and hasattr(value, "null_count"):
        if not value.null_count and str(value.type) in _NUMBERS:
            return _plain_array(value.to_numpy(zero_copy_only=False))
        return [_plain_value(item) for item in value.to_pylist()]
    if package == "polars" and hasattr(value, "to_list"):
        if not value.null_count() and str(value.dtype) in _NUMBERS:
            return _plain_array(value.to_numpy())
        return [_plain_value(item) for item in value.to_list()]
    return None


_OF_PANDAS = (pd.Series, pd.Index, pd.api.extensions.ExtensionArray)


def _plain_column(values: Any) -> Any:
    if isinstance(values, pd.MultiIndex):  # which pandas makes no series of
        return [_plain_value(value) for value in values]
    return _plain_series(pd.Series(values))


def _plain_series(series: pd.Series[Any]) -> Any:
    if isinstance(series.dtype, np.dtype) and series.dtype != object:
        return _plain_array(series.to_numpy())
    missing = series.isna().to_numpy()
    values = series.astype(object).to_list()
    return [None if gone else _plain_value(value) for value, gone in zip(values, missing.tolist())]


_NO_NUMBERS = {np.void, np.object_, np.timedelta64, np.complex64, np.complex128, np.clongdouble}
_NUMPY = frozenset(np.sctypeDict.values()) - _NO_NUMBERS - {np.longdouble}
_PLAIN = _NUMPY | {bool, int, float, str, bytes, type(None)}

# How a value of a subclass becomes one of the class itself; its own methods may say another thing,
# as an Enum's do.
_BARE: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (bytes, lambda value: b"".join((value,))),
    (int, int.__int__),
    (float, float.__float__),
)


def _plain_value(value: Any) -> Any:
    """The value without any class that only the model's own process knows."""
    if type(value) in _PLAIN:
        return value
    if value is pd.NaT:
        return np.datetime64("NaT")
    if value is pd.NA:
        return None
    if isinstance(value, pd.Timestamp):
        return _plain_timestamp(value)
    if isinstance(value, np.ndarray):
        return _plain_array(value)
    if isinstance(value, dict):
        return {_name(key): _plain_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain_value(item) for item in value]
    for plain, bare in _BARE:
        if isinstance(value, plain):
            return bare(value)
    return _plain_scalar(value) if isinstance(value, np.generic) else _converted(value)


def _plain_array(array: Any) -> Any:
    """As an array of NumPy's own class, or as a list where it holds something else than numbers,
    texts and times; what is masked becomes None."""
    if isinstance(array, np.ma.MaskedArray) and np.ma.getmask(array) is not np.ma.nomask:
        return _unmasked(np.asarray(np.ma.getdata(array)), np.asarray(np.ma.getmask(array)))
    array = np.asarray(array)
    if not array.ndim:
        return _plain_value(array[()])
    if array.dtype.type in _NUMPY:
        # A type may carry whatever somebody attached to it.
        return array if array.dtype.metadata is None else array.astype(array.dtype.str)
    if array.dtype.type is np.longdouble:  # of which each platform has another
        return array.astype(np.float64)
    return [_plain_value(value) for value in array]


def _unmasked(array: Any, mask: Any) -> Any:
    if mask.dtype != bool:
        raise UnsupportedOutput("the model answered records of which some fields are masked")
    if not mask.any():
        return _plain_array(array)
    if not mask.ndim:
        return None
    if mask.ndim > 1:
        return [_unmasked(row, of_row) for row, of_row in zip(array, mask)]
    return [None if gone else _plain_value(value) for value, gone in zip(array, mask.tolist())]


def _plain_scalar(value: Any) -> Any:
    """A scalar of somebody else's class, or a record as the list of its fields."""
    if isinstance(value, np.void):
        if value.dtype.names is None:
            raise _unsupported(value)
        return [_plain_value(value[name]) for name in value.dtype.names]
    if isinstance(value, np.longdouble):
        return float(value)
    if value.dtype.type in _NO_NUMBERS:  # `item` makes a whole number of some lengths of time
        raise _unsupported(value)
    array = np.asarray(value)
    return array[()] if array.dtype.type in _NUMPY else _plain_value(value.item())


def _name(key: Any) -> str:
    """The name of a column or a member as Python's `json` writes it; numbers are as Python writes
    them."""
    if key is None:
        return "null"
    if isinstance(key, (bool, np.bool_)):
        return "true" if key else "false"
    if isinstance(key, (float, np.floating)) and not np.isfinite(key):
        return json.dumps(float(key))
    if isinstance(key, enum.Enum) and not isinstance(key, (str, int)):
        return _name(key.value)
    if type(key) not in _PLAIN:
        key = next((bare(key) for plain, bare in _BARE if isinstance(key, plain)), key)
    return str.__str__(str(key))


def _converted(value: Any) -> Any:
    if isinstance(value, _OF_PANDAS):
        return _plain_column(value)
    if isinstance(value, pd.DataFrame):
        return _records({name: _plain_series(value[name]) for name in value})
    if inspect.isawaitable(value) or inspect.isasyncgen(value):
        return _plain_value(_awaited(value))
    if _is_list_of_its_own(value):
        return [_plain_value(item) for item in value]
    if isinstance(value, enum.Enum):
        return _plain_value(value.value)
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, decimal.Decimal):
        return _number(value)
    if isinstance(value, Mapping):
        return {_name(key): _plain_value(item) for key, item in value.items()}
    if _package(value) in ("pyarrow", "polars"):
        return _converted_of_others(value)
    if isinstance(value, dt.time):  # a time of no day: as pandas writes it
        return value.isoformat()
    if isinstance(value, dt.datetime) and value.utcoffset() is not None:
        return _with_offset(value)
    if hasattr(value, "isoformat"):
        return np.datetime64(value)
    if hasattr(value, "model_dump"):
        return _plain_value(value.model_dump())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain_value(dataclasses.asdict(value))
    array = _array_in(value)
    if array is None:
        raise _unsupported(value)
    return _plain_array(array)


def _number(value: decimal.Decimal) -> Any:
    """JSON has one kind of number: a whole one stays exact, another is the nearest float."""
    if value.is_finite() and value == value.to_integral_value():
        return int(value)
    return float(value)


def _converted_of_others(value: Any) -> Any:
    table = _columns_of_others(value)
    if table is not None:
        return _records(table)
    array = _array_of_others(value)
    if array is not None:
        return array
    if hasattr(value, "as_py"):  # a scalar of Arrow
        return _plain_value(value.as_py())
    raise _unsupported(value)


def _records(columns: dict[Any, Any]) -> list[Any]:
    """The rows of a table that is itself one value, as MLflow's own server writes tables."""
    names = [_name(name) for name in columns]
    return [dict(zip(names, map(_plain_value, row))) for row in zip(*columns.values())]


def _array_in(value: Any) -> Any:
    """The array that a value is, or stands for."""
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "toarray"):  # scipy's sparse matrices
        return value.toarray()
    if hasattr(value, "detach"):
        return _array_of_torch(value)
    if hasattr(value, "__array__"):  # TensorFlow, JAX and others
        return np.asarray(value)
    return None


def _array_of_torch(tensor: Any) -> Any:
    tensor = tensor.detach().cpu()
    if tensor.is_sparse:
        tensor = tensor.to_dense()
    try:
        return tensor.numpy()
    except TypeError:  # NumPy has no such type (bfloat16), of which each value is one of 32 bits
        return tensor.float().numpy()


def _unsupported(value: Any) -> UnsupportedOutput:
    return UnsupportedOutput(
        f"the model answered an object of the type {type(value).__name__}, which has no JSON form"
    )


def _plain_timestamp(value: pd.Timestamp) -> Any:
    """What no `datetime` has, nanoseconds, is of UTC."""
    if value.tzinfo is None:
        return value.to_datetime64()
    if value.nanosecond:
        return value.tz_convert("UTC").tz_localize(None).to_datetime64()
    return _with_offset(value)


def _with_offset(value: dt.datetime) -> dt.datetime:
    """The moment with its offset, without whatever class knows of its place."""
    offset = dt.timezone(value.utcoffset() or dt.timedelta())
    return dt.datetime(
        value.year, value.month, value.day, value.hour, value.minute, value.second,
        value.microsecond, offset,
    )  # fmt: skip
