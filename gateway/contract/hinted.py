"""Models that were made from type hints: what the model's own classes decide.

MLflow writes a pydantic class as an object whose members are all required, but those that may be
None: a default is nowhere in the MLmodel file. MLflow asks the class itself, in the model's
process, when the model is called; so does a gateway, and what the class refuses is told as a
refusal of the body (`deployments.model_process.hinted`). Nor does the file say that a class has
members beyond those that it declares: what an object in an answer has more was given by the class,
and stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gateway.contract.text_formats import pointer
from gateway.contract.types import ArrayOf, Field, MapOf, ObjectOf, Rows, Type
from gateway.errors import InvalidInput, Violation


def loosened(inputs: Rows) -> Rows:
    """The inputs with each member of an object left to the model's class."""
    return _changed(inputs, lambda each: replace(each, fields=tuple(map(_left_open, each.fields))))


def opened(outputs: Rows | None) -> Rows | None:
    """The outputs with what an object has beyond the declared members."""
    if outputs is None:
        return None
    return _changed(outputs, lambda each: replace(each, extras="kept"))


def _changed(rows: Rows, change: Callable[[ObjectOf], ObjectOf]) -> Rows:
    return replace(rows, fields=tuple(_field(each, change) for each in rows.fields))


def _field(field: Field, change: Callable[[ObjectOf], ObjectOf]) -> Field:
    return replace(field, type=_type(field.type, change))


def _type(type_: Type, change: Callable[[ObjectOf], ObjectOf]) -> Type:
    match type_:
        case ArrayOf(items):
            return ArrayOf(_type(items, change))
        case MapOf(values):
            return MapOf(_type(values, change))
        case ObjectOf(fields):
            return change(replace(type_, fields=tuple(_field(each, change) for each in fields)))
        case _:
            return type_


def _left_open(field: Field) -> Field:
    return replace(field, required=False)


def located(error: InvalidInput, at: tuple[str, ...], *, single: bool) -> InvalidInput:
    """A refusal by the model, whose pointers begin with the row's number, with pointers into the
    body that had its rows at `at`, or its one row there."""
    return InvalidInput(
        tuple(
            Violation(
                pointer=pointer(at) + (_within(v.pointer) if single else v.pointer),
                message=v.message,
            )
            for v in error.violations
        )
    )


def further_down(error: InvalidInput, rows: int) -> InvalidInput:
    """A refusal of some rows, told of a list that has so many others before them."""
    return InvalidInput(
        tuple(replace(v, pointer=_moved(v.pointer, rows)) for v in error.violations)
    )


def _moved(of_row: str, rows: int) -> str:
    row, slash, rest = of_row[1:].partition("/")
    return f"/{int(row) + rows}{slash}{rest}"


def _within(of_row: str) -> str:
    """A pointer without its first part."""
    _, _, rest = of_row[1:].partition("/")
    return f"/{rest}" if rest else ""
