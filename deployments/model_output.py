"""A model's answer in plain form: no class of it that only the model's own process knows.

Travels to the replica by value with `deployments.version_host`, and like it imports nothing else of
ours.
What the answer means by the signature is the gateway's to say (`gateway.contract.rendering`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd


class UnsupportedOutput(Exception):
    """The model answered something that has no plain form."""


def plain_output(answer: Any) -> tuple[Any, ...]:
    """A model's answer as `("columns", names, columns)` or `("values", values)`.

    Raises UnsupportedOutput for what has no plain form.
    """
    if isinstance(answer, pd.DataFrame):
        columns = [_plain_series(answer.iloc[:, i]) for i in range(answer.shape[1])]
        return ("columns", [str(name) for name in answer.columns], columns)
    if isinstance(answer, pd.Series):
        return ("values", _plain_series(answer))
    if isinstance(answer, dict) and _is_by_column(answer):
        return ("columns", [str(n) for n in answer], [_plain_value(c) for c in answer.values()])
    if isinstance(answer, list | tuple):
        return ("values", [_plain_value(value) for value in answer])
    value = _plain_value(answer)
    return ("values", value if isinstance(value, np.ndarray) and value.ndim else [value])


def _is_by_column(answer: dict[Any, Any]) -> bool:
    """Whether a dict holds one sequence per column, all of one length."""
    lengths = {
        len(value) if isinstance(value, list | tuple | pd.Series) else value.shape[0]
        for value in answer.values()
        if isinstance(value, list | tuple | pd.Series)
        or (isinstance(value, np.ndarray) and value.ndim)
    }
    return len(lengths) == 1 and all(
        isinstance(value, list | tuple | np.ndarray | pd.Series) for value in answer.values()
    )


def _plain_series(series: pd.Series[Any]) -> Any:
    if isinstance(series.dtype, pd.DatetimeTZDtype):
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    if isinstance(series.dtype, np.dtype) and series.dtype != object:
        return series.to_numpy()
    missing = series.isna().to_numpy()
    values = series.astype(object).to_list()
    return [
        None if gone else _plain_value(value)
        for value, gone in zip(values, missing.tolist(), strict=True)
    ]


_PLAIN = (bool, int, float, str, bytes, np.generic, type(None))


def _plain_value(value: Any) -> Any:
    """The value without any class that only the model's own process knows."""
    if value is pd.NaT:
        return np.datetime64("NaT")
    if isinstance(value, pd.Timestamp):
        naive = value if value.tzinfo is None else value.tz_convert("UTC").tz_localize(None)
        return naive.to_datetime64()
    if type(value) in _PLAIN or isinstance(value, np.generic):
        return value
    if isinstance(value, np.ndarray):
        return value if value.dtype != object else [_plain_value(v) for v in value]
    if isinstance(value, dict):
        return {str(key): _plain_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_value(item) for item in value]
    return _converted(value)


def _converted(value: Any) -> Any:
    if isinstance(value, pd.Series):
        return _plain_series(value)
    if hasattr(value, "isoformat"):
        return np.datetime64(_as_naive_utc(value))
    if hasattr(value, "model_dump"):
        return _plain_value(value.model_dump())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain_value(dataclasses.asdict(value))
    if hasattr(value, "toarray"):  # scipy's sparse matrices
        return value.toarray()
    if hasattr(value, "detach"):  # torch tensors
        return value.detach().cpu().numpy()
    for plain in (str, bytes, int, float):  # what is left are subclasses of them
        if isinstance(value, plain):
            return plain(value)  # type: ignore[arg-type]  # each takes its own kind
    raise UnsupportedOutput(f"the model answered a {type(value).__name__}, which has no JSON form")


def _as_naive_utc(value: Any) -> Any:
    offset = value.utcoffset() if hasattr(value, "utcoffset") else None
    return value if offset is None else (value - offset).replace(tzinfo=None)
