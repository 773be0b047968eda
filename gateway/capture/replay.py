"""Rows of a table -> the inputs that they were, as JSON has them: to be asked again.

The table is one of captured requests, or has the inputs under their own names. Raises NotReplayable
where it lacks what must be asked.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from gateway.capture.arrow_columns import is_text
from gateway.capture.left_out import INPUT, PARAM
from gateway.contract import Contract
from gateway.contract.types import (
    ArrayOf,
    MapOf,
    ObjectOf,
    Scalar,
    TensorOf,
    TextOrTexts,
    Type,
)

_OK = 200


class NotReplayable(Exception):
    """The table can't be asked again; the sentence is for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One input, with the params of its request, and `told` for people: where it is from."""

    value: Any
    params: Mapping[str, Any]
    told: str
    request: str | None = None
    """The id of the request that it was one of; what travels together is one question's matter
    where nothing types the inputs."""


def questions_of(table: Any, contract: Contract, *, source: str) -> Iterator[Question]:
    """What the rows of a `pyarrow.Table` ask. Of captured ones, those that were answered."""
    is_captured = _is_captured(table.column_names)
    reader = _Reader(contract, prefix=f"{INPUT}." if is_captured else "")
    reader.require(table.column_names)
    for number, row in enumerate(table.to_pylist()):
        if not is_captured:
            yield Question(value=reader.value(row), params={}, told=f"{source} row {number}")
        elif row["status"] == _OK and row["row"] is not None:
            request = row["request_id"]
            yield Question(
                value=reader.value(row),
                params=reader.params(row),
                told=f"request {request} row {row['row']}",
                request=request,
            )


def _is_captured(names: list[str]) -> bool:
    return {"request_id", "row", "status"} <= set(names)


class _Reader:
    """Reads rows by a contract; its columns' names begin with `prefix`."""

    def __init__(self, contract: Contract, *, prefix: str) -> None:
        self._prefix = prefix
        self._inputs = contract.inputs
        self._params = contract.params
        self._untyped = contract.untyped
        self._is_task = contract.task is not None
        self._takes_records = contract.untyped and not prefix
        self._is_bare = not contract.inputs.named and len(contract.inputs.fields) == 1
        self._bare = prefix.rstrip(".")

    def require(self, names: list[str]) -> None:
        """Raises NotReplayable where a column is missing that must be there."""
        if self._takes_records:
            return
        if self._is_bare:
            if self._name("") not in names and len(names) != 1:
                raise NotReplayable(f"there is no column {self._name('') or 'alone'}")
            self._bare = self._bare or names[0]
            return
        wanted = [self._name(f.name) for f in self._inputs.fields if f.required]
        missing = [name for name in wanted if name not in names]
        if missing:
            raise NotReplayable(f"there is no column {', '.join(missing)}")

    def value(self, row: Mapping[str, Any]) -> Any:
        """One input."""
        if self._takes_records:
            return dict(row)
        if self._is_bare:
            type_ = self._inputs.fields[0].type
            return _parsed(row[self._bare]) if self._untyped else json_value(row[self._bare], type_)
        cells = {f.name: self._cell(row.get(self._name(f.name)), f.type)
                 for f in self._inputs.fields}  # fmt: skip
        if not self._inputs.named:
            return list(cells.values())
        return {name: value for name, value in cells.items() if value is not None}

    def params(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The params that its request had."""
        found = {p.name: json_value(row.get(f"{PARAM}.{p.name}"), p.type) for p in self._params}
        return {name: value for name, value in found.items() if value is not None}

    def _cell(self, value: Any, type_: Type) -> Any:
        if self._is_task and isinstance(type_, ArrayOf | MapOf | ObjectOf):
            return _parsed(value)
        return json_value(value, type_)

    def _name(self, name: str) -> str:
        return f"{self._prefix}{name}" if name else self._bare


def json_value(value: Any, type_: Type) -> Any:
    """A cell as the JSON of a request has it; null and NaN are None."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if is_text(type_):
        return _text(value) if isinstance(type_, TextOrTexts) else _parsed(value)
    match type_:
        case Scalar("datetime"):
            return value if isinstance(value, str) else value.isoformat()
        case Scalar("binary"):
            is_bytes = isinstance(value, bytes)
            return base64.b64encode(value).decode("ascii") if is_bytes else value
        case ArrayOf(items):
            return [json_value(each, items) for each in value]
        case MapOf(values):
            members = value.items() if isinstance(value, Mapping) else value
            return {name: json_value(each, values) for name, each in members}
        case ObjectOf(fields):
            found = {f.name: json_value(value.get(f.name), f.type) for f in fields}
            return {name: each for name, each in found.items() if each is not None}
        case TensorOf():
            return value.tolist() if hasattr(value, "tolist") else value
    return value


def _parsed(value: Any) -> Any:
    """JSON text, or what isn't one as it is."""
    if not isinstance(value, str):
        return value
    try:
        return from_json(value, allow_inf_nan=False)  # whole numbers of any size
    except ValueError:
        return value


def _text(value: Any) -> Any:
    parsed = _parsed(value)
    return parsed if isinstance(parsed, list) else value
