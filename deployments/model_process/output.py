"""A model's answer -> plain values: without any class that only the model's own process knows.

What is plain is told by the exact type: Python's own values, NumPy's own scalars, and arrays of
these. So an answer can be written (`values`) and read by a process that has no other package. What
it means by the signature is the gateway's to say (`gateway.contract.rendering`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd


class UnsupportedOutput(Exception):
    """The model answered something that has no plain form."""


def plain_output(answer: Any) -> tuple[Any, ...]:
    """A model's answer as `("columns", names, columns)` or `("values", values)`.

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
    if isinstance(answer, pd.DataFrame):
        columns = [_plain_series(answer.iloc[:, i]) for i in range(answer.shape[1])]
        return ("columns", [_name(name) for name in answer.columns], columns)
    if isinstance(answer, pd.Series):
        return ("values", _plain_series(answer))
    if isinstance(answer, dict) and _is_by_column(answer):
        columns = [_plain_value(column) for column in answer.values()]
        return ("columns", [_name(name) for name in answer], columns)
    if isinstance(answer, (list, tuple)):
        return ("values", [_plain_value(value) for value in answer])
    array = _array_in(answer)
    if array is not None and array.ndim:
        return ("values", _plain_array(array))
    return ("values", [_plain_value(answer)])


def _is_by_column(answer: dict[Any, Any]) -> bool:
    """Whether a dict holds one sequence per column, all of one length."""
    lengths = {
        len(value) if isinstance(value, (list, tuple, pd.Series)) else value.shape[0]
        for value in answer.values()
        if isinstance(value, (list, tuple, pd.Series))
        or (isinstance(value, np.ndarray) and value.ndim)
    }
    return len(lengths) == 1 and all(
        isinstance(value, (list, tuple, np.ndarray, pd.Series)) for value in answer.values()
    )


def _plain_series(series: pd.Series[Any]) -> Any:
    if isinstance(series.dtype, pd.DatetimeTZDtype):
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    if isinstance(series.dtype, np.dtype) and series.dtype != object:
        return _plain_array(series.to_numpy())
    missing = series.isna().to_numpy()
    values = series.astype(object).to_list()
    return [None if gone else _plain_value(value) for value, gone in zip(values, missing.tolist())]


_NUMPY = frozenset(np.sctypeDict.values()) - {np.void, np.object_}
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
    if isinstance(value, pd.Timestamp):
        naive = value if value.tzinfo is None else value.tz_convert("UTC").tz_localize(None)
        return naive.to_datetime64()
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
    if array.dtype.type in _NUMPY:
        # A type may carry whatever somebody attached to it.
        return array if array.dtype.metadata is None else array.astype(array.dtype.str)
    return [_plain_value(value) for value in array] if array.ndim else _plain_value(array[()])


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
    array = np.asarray(value)
    return array[()] if array.dtype.type in _NUMPY else _plain_value(value.item())


def _name(key: Any) -> str:
    """The name of a column or a member; numbers are as Python writes them."""
    if type(key) not in _PLAIN:
        key = next((bare(key) for plain, bare in _BARE if isinstance(key, plain)), key)
    return str.__str__(str(key))


def _converted(value: Any) -> Any:
    if isinstance(value, pd.Series):
        return _plain_series(value)
    if isinstance(value, dt.time):  # a time of no day: as pandas writes it
        return value.isoformat()
    if hasattr(value, "isoformat"):
        return np.datetime64(_as_naive_utc(value))
    if hasattr(value, "model_dump"):
        return _plain_value(value.model_dump())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain_value(dataclasses.asdict(value))
    array = _array_in(value)
    if array is None:
        raise _unsupported(value)
    return _plain_array(array)


def _array_in(value: Any) -> Any:
    """The array that a value is, or stands for."""
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "toarray"):  # scipy's sparse matrices
        return value.toarray()
    if hasattr(value, "detach"):  # torch tensors
        return value.detach().cpu().numpy()
    return None


def _unsupported(value: Any) -> UnsupportedOutput:
    return UnsupportedOutput(f"the model answered a {type(value).__name__}, which has no JSON form")


def _as_naive_utc(value: Any) -> Any:
    offset = value.utcoffset() if hasattr(value, "utcoffset") else None
    return value if offset is None else (value - offset).replace(tzinfo=None)
