"""The form for a prediction: a contract's inputs and params as fields that a page can show.

A field's value is text. What the page's script makes of it is told by `Control`: the text itself as
a JSON string, or the text as JSON as it stands, so that no number is ever rounded on its way.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gateway.contract import Contract
from gateway.contract.body import wraps
from gateway.contract.json_schema import example_value
from gateway.contract.types import (
    SCALAR_KINDS,
    Field,
    ObjectOf,
    Param,
    Rows,
    Scalar,
    TensorOf,
    TupleOf,
    Type,
    describe,
)
from gateway.errors import GatewayError

Control = Literal["choice", "number", "text", "json"]
"""`choice` is true, false or absent; `number` and `json` are JSON text; `text` is a string."""

Shape = Literal["record", "tuple", "value"]
"""One input is an object, a list of unnamed values, or one unnamed value."""

_NUMBERS = {"integer", "long", "float", "double"}
_HINTS = {
    "datetime": "ISO 8601. UTC, unless there is an offset.",
    "binary": "Base64.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FormField:
    """One input or param. `label` is for people, `name` for the body.

    `placeholder` is the value that an absent param has (`default`), else an example, empty where
    that would be large.
    """

    name: str
    label: str
    type: str
    control: Control
    required: bool
    hint: str
    placeholder: str
    default: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """All that is asked for a prediction, and the values that are there at first.

    `rows` has the texts of `fields` for each input, at least one; `param_values` those of `params`.
    `rows_together` is the number of inputs that must come together.
    """

    shape: Shape
    fields: tuple[FormField, ...]
    params: tuple[FormField, ...]
    rows: tuple[tuple[str, ...], ...]
    param_values: tuple[str, ...]
    rows_together: int


def form_of(contract: Contract, example: Any) -> Form:
    """The form for what the model itself takes, filled with an example of a body (None: there is
    none)."""
    inputs = contract.inputs
    filled, params = _taken_apart(contract, example)
    fields = _fields(inputs)
    named = contract.params if wraps(inputs) else ()  # else no body could bring params
    return Form(
        shape=_shape(inputs),
        fields=fields,
        params=tuple(_param(param) for param in named),
        rows=tuple(_texts(inputs, fields, row) for row in filled) or (_first_texts(inputs),),
        param_values=tuple(_text(params.get(p.name), _control(p.type)) for p in named),
        rows_together=inputs.chunk or 1,
    )


def _taken_apart(contract: Contract, example: Any) -> tuple[list[Any], dict[str, Any]]:
    """One made up stands in for an example of no inputs, and for one that only a newer version
    takes. No rows where none can be made up."""
    try:
        rows, params = contract.taken_apart(example)
    except GatewayError:
        rows, params = [], {}
    if rows:
        return rows, params
    made_up = contract.example()
    return ([], {}) if made_up is None else contract.taken_apart(made_up)


def _first_texts(inputs: Rows) -> tuple[str, ...]:
    """One input where no whole body can be made up: what is small is filled in."""
    return tuple(
        _text(example_value(f.type) if f.required else None, _control(f.type))
        for f in inputs.fields
    )


def _shape(inputs: Rows) -> Shape:
    if inputs.named:
        return "record"
    return "tuple" if isinstance(inputs.row, TupleOf) else "value"


def _fields(inputs: Rows) -> tuple[FormField, ...]:
    return tuple(
        _field(field, label, example_value(field.type))
        for field, label in zip(inputs.fields, _labels(inputs), strict=True)
    )


def _labels(inputs: Rows) -> list[str]:
    """Unnamed inputs are called by what they are."""
    if inputs.named:
        return [field.name for field in inputs.fields]
    if len(inputs.fields) == 1:
        return ["Input"]
    return [f"Input {number}" for number, _ in enumerate(inputs.fields, start=1)]


def _values(inputs: Rows, row: Any) -> list[Any]:
    if inputs.named:
        return [row.get(field.name) for field in inputs.fields]
    return list(row) if isinstance(inputs.row, TupleOf) else [row]


def _texts(inputs: Rows, fields: Sequence[FormField], row: Any) -> tuple[str, ...]:
    values = _values(inputs, row)
    return tuple(_text(v, field.control) for v, field in zip(values, fields, strict=True))


def _field(field: Field, label: str, example: Any) -> FormField:
    control = _control(field.type)
    return FormField(
        name=field.name,
        label=label or "(empty name)",
        type=describe(field.type),
        control=control,
        required=field.required,
        hint=_hint(field.type, control),
        placeholder=_text(example, control),
    )


def _param(param: Param) -> FormField:
    control = _control(param.type)
    return FormField(
        name=param.name,
        label=param.name,
        type=describe(param.type),
        control=control,
        required=False,
        hint=_hint(param.type, control),
        placeholder=default_text(param),
        default=True,
    )


def default_text(param: Param) -> str:
    """A param's default as its field would have it."""
    return "null" if param.default is None else _text(param.default, _control(param.type))


def _kind(type_: Type) -> str | None:
    """The kind of a single value, None where there is more to it."""
    if isinstance(type_, Scalar):
        return type_.kind
    if isinstance(type_, TensorOf) and not type_.inner:
        return SCALAR_KINDS.get(type_.dtype.kind)
    return None


def _control(type_: Type) -> Control:
    kind = _kind(type_)
    if kind is None:
        return "json"
    if kind == "boolean":
        return "choice"
    return "number" if kind in _NUMBERS else "text"


def _hint(type_: Type, control: Control) -> str:
    if control != "json":
        return _HINTS.get(_kind(type_) or "", "")
    if isinstance(type_, TensorOf) and type_.inner:
        sizes = " × ".join("any" if n == -1 else str(n) for n in type_.inner)
        return f"JSON: nested lists, {sizes}."
    return "JSON: an object." if isinstance(type_, ObjectOf) else "JSON."


def _text(value: Any, control: Control) -> str:
    """A value as the field has it; nothing where there is none."""
    if value is None:
        return ""
    return value if control == "text" else json.dumps(value, ensure_ascii=False)
