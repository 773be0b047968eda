"""What was asked and answered, as the shadow is to have it, and what is kept of a row that differs.

References to what the request had anyway: nothing is copied before somebody looks.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import orjson

from gateway.capture.left_out import INPUT, OUTPUT, PARAM, is_left_out, without
from gateway.catalog import Resolution, ShadowTarget
from gateway.contract import Contract, Form, Outputs, Request
from gateway.errors import InvalidModelOutput

_LONGEST_VALUE = 1000
_COLUMNS_SHOWN = 32
_WHOLE = "prediction"
_AS_JSON = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A request that the default has answered: its body, what was read of it (None of a stream),
    and what came back.

    `outputs` are the default's by frame, `events` what it gave where it was a stream, `model_s` the
    seconds that it took, `size_bytes` about what all of this holds, `patience_s` the seconds that
    the shadow may take.
    """

    resolution: Resolution
    target: ShadowTarget
    body: bytes
    form: Form
    request: Request | None
    outputs: Outputs = ()
    events: Sequence[bytes] | None = None
    model_s: float
    size_bytes: int
    patience_s: float


Columns: TypeAlias = Mapping[str, Sequence[Any]]
"""An answer's values by column."""


def columns_of(contract: Contract, outputs: Outputs, rows: int) -> Columns:
    """An answer by column, with JSON's values; one that has no columns is one. Raises
    InvalidModelOutput."""
    try:
        return {each.name: each.values for each in contract.columns(outputs, rows)}
    except InvalidModelOutput:
        return {_WHOLE: orjson.loads(contract.render(outputs, rows))}


def row_of(columns: Columns, row: int, left_out: Container[str]) -> dict[str, Any]:
    """One row of an answer, to be kept without the columns that are left out."""
    there = [
        (name, values)
        for name, values in columns.items()
        if row < len(values) and not is_left_out(left_out, OUTPUT, name)
    ]
    return {
        name: shortened(without(left_out, OUTPUT, values[row]))
        for name, values in there[:_COLUMNS_SHOWN]
    }


def inputs_of(request: Request, row: int, left_out: Container[str]) -> dict[str, Any]:
    """What was asked in that row, and with which params, to be kept without what is left out."""
    asked: dict[str, Any] = {}
    for places, frame in request.frames:
        if row in places:
            place = places.index(row)
            named = zip(map(str, frame.names or (_WHOLE,)), frame.columns, strict=False)
            there = [each for each in named if not is_left_out(left_out, INPUT, each[0])]
            asked = {
                name: shortened(without(left_out, INPUT, column[place]))
                for name, column in there[:_COLUMNS_SHOWN]
            }
    params = without(left_out, PARAM, request.params)
    return {**asked, "params": shortened(params)} if params else asked


def shortened(value: Any) -> Any:
    """The value as JSON has it; a text that ends in `…` where that is long."""
    try:
        text = orjson.dumps(value, default=_plain, option=_AS_JSON)
    except (TypeError, RecursionError):  # a whole number of more than 64 bits, or too deep
        text = orjson.dumps(str(value)[: 2 * _LONGEST_VALUE])
    if len(text) <= _LONGEST_VALUE:
        return orjson.loads(text)
    return text[:_LONGEST_VALUE].decode(errors="replace") + "…"


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)
