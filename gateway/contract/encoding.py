"""Validated values -> the Python objects that MLflow's enforcement lets through unchanged.

Two targets. `ENFORCED` is for models with a written or inferred signature: MLflow 3.17 casts no
int to int32 and no float to float32 inside of arrays and objects, takes only numpy's datetimes
for scalars, and makes of a list of numbers in an `Array` its own idea of their type; so there
numpy values go in. `PLAIN` is for models made from type hints and for params, which MLflow checks
with `isinstance`. Fields that the model doesn't know (see `Contract.extended_by`) are left out
here, at every depth, because MLflow refuses unknown properties.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import numpy as np

from gateway.contract.types import ArrayOf, Field, MapOf, ObjectOf, Scalar, Type

Encoder = Callable[[Any], Any]

# What a column, or an array inside of a row, must be made of to keep its type on the way.
COLUMN_DTYPES: dict[str, np.dtype[Any]] = {
    "boolean": np.dtype(np.bool_),
    "integer": np.dtype(np.int32),
    "long": np.dtype(np.int64),
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "datetime": np.dtype("M8[ns]"),
}
_ARRAYS_OF = {"integer", "float", "datetime"}


class Target(Enum):
    """Who checks the values that are made."""

    ENFORCED = "signature"
    PLAIN = "type hints"


def encoder(type_: Type, accepted: Type, target: Target) -> Encoder | None:
    """How to turn a value of the type `accepted` into one for the model's `type_`.

    None is as it is: most values need no walk.
    """
    match type_, accepted:
        case Scalar(kind), _:
            return _scalar(kind, target)
        case ArrayOf(items), ArrayOf(taken):
            return _array(items, taken, target)
        case MapOf(values), MapOf(taken):
            return _map(encoder(values, taken, target))
        case ObjectOf(fields, extras), ObjectOf(taken_fields):
            return _object(fields, taken_fields, target, is_open=extras == "kept")
        case _:
            return None


def _scalar(kind: str, target: Target) -> Encoder | None:
    if target is Target.PLAIN:
        return _python_datetime if kind == "datetime" else None
    return {"integer": np.int32, "float": np.float32}.get(kind)


def _python_datetime(moment: Any) -> Any:
    """A naive `datetime.datetime`, cut to its microseconds; what isn't NumPy's stays."""
    return moment.astype("M8[us]").item() if isinstance(moment, np.datetime64) else moment


def _array(items: Type, taken: Type, target: Target) -> Encoder | None:
    if target is Target.ENFORCED and isinstance(items, Scalar) and items.kind in _ARRAYS_OF:
        dtype = COLUMN_DTYPES[items.kind]
        return lambda value: np.array(value, dtype=dtype) if value else value  # as MLflow does
    each = encoder(items, taken, target)
    if each is None:
        return None
    return _if_it_is(list, lambda value: [_encoded(item, each) for item in value])


def _map(each: Encoder | None) -> Encoder | None:
    if each is None:
        return None
    return _if_it_is(
        dict, lambda value: {name: _encoded(item, each) for name, item in value.items()}
    )


def _object(
    fields: tuple[Field, ...], taken: tuple[Field, ...], target: Target, *, is_open: bool
) -> Encoder | None:
    """What nobody declared stays in an open object; what only callers know is left out of any."""
    types = {field.name: field.type for field in taken}
    each = {field.name: encoder(field.type, types[field.name], target) for field in fields}
    if len(each) == len(types) and not any(each.values()):
        return None

    def encode(value: dict[str, Any]) -> dict[str, Any]:
        return {
            name: _encoded(item, each.get(name))
            for name, item in value.items()
            if name in each or (is_open and name not in types)
        }

    return _if_it_is(dict, encode)


def _if_it_is(kind: type, encode: Encoder) -> Encoder:
    """Of what isn't of the kind the value as it was sent: a type hint's class decides then."""
    return lambda value: encode(value) if isinstance(value, kind) else value


def _encoded(value: Any, how: Encoder | None) -> Any:
    return value if how is None or value is None else how(value)
