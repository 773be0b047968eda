"""Models that were made from type hints: what the model's own classes decide.

MLflow writes a pydantic class as an object whose members are all required, but those that may be
None: a default is nowhere in the MLmodel file, nor whether the class takes members beyond those
that it declares, under other names (aliases), or null in a list (`list[int | None]`). MLflow asks
the class itself, in the model's process, when the model is called; so does a gateway, and what the
class refuses is told as a refusal of the body (`deployments.model_process.hinted`). What an object
in an answer has beyond the declared members was given by the class, and stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gateway.contract.text_formats import pointer
from gateway.contract.types import ArrayOf, Field, MapOf, ObjectOf, Rows, Scalar, Type
from gateway.errors import InvalidInput, Violation


def loosened(inputs: Rows) -> Rows:
    """The inputs with each member of an object, and each null in a list, left to the model's class.
    What a member is declared as is what the class makes of it: a check before that may take a text
    for a list, say. A moment has the offset that it was sent with, as MLflow hands it over."""
    return _changed(_changed(with_gaps(inputs), _left_to_class), _with_offset)


def opened(rows: Rows) -> Rows:
    """The rows with what an object has beyond the declared members."""
    return _changed(rows, _open)


def with_gaps(rows: Rows) -> Rows:
    """The rows with null in lists and maps: of what may be None there MLflow writes the rest."""
    return _changed(rows, _with_gaps)


def _changed(rows: Rows, change: Callable[[Type], Type]) -> Rows:
    return replace(rows, fields=tuple(_field(each, change) for each in rows.fields))


def _field(field: Field, change: Callable[[Type], Type]) -> Field:
    return replace(field, type=_type(field.type, change))


def _type(type_: Type, change: Callable[[Type], Type]) -> Type:
    match type_:
        case ArrayOf(items):
            return change(replace(type_, items=_type(items, change)))
        case MapOf(values):
            return change(replace(type_, values=_type(values, change)))
        case ObjectOf(fields):
            return change(replace(type_, fields=tuple(_field(each, change) for each in fields)))
        case _:
            return change(type_)


def _with_offset(type_: Type) -> Type:
    return replace(type_, has_offset=True) if type_ == Scalar("datetime") else type_


def _open(type_: Type) -> Type:
    return replace(type_, extras="kept") if isinstance(type_, ObjectOf) else type_


def _with_gaps(type_: Type) -> Type:
    return replace(type_, gaps=True) if isinstance(type_, ArrayOf | MapOf) else type_


def _left_to_class(type_: Type) -> Type:
    if not isinstance(type_, ObjectOf):
        return type_
    fields = tuple(replace(each, required=False, class_decides=True) for each in type_.fields)
    return replace(type_, fields=fields)


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
