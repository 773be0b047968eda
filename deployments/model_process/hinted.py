"""Why a model's type hint refuses rows: asked of the hint's own classes, once a call has failed.

MLflow validates what a model made from type hints is called with, and says in one text what is
wrong with all of it. Here it is told apart, by row and member.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, List

from .attempt import attempted

MOST = 50
"""So many refusals of a call are told."""

Refusal = List[Any]
"""`[row, path, message]`."""

# What the model's author wrote, who may have put the caller's value into it.
_OF_THE_AUTHOR = {"value_error", "assertion_error"}


class TypeHint:
    """What the elements of a model's input are by its type hint."""

    def __init__(self, element: Any) -> None:
        self._element = element

    @classmethod
    def of(cls, model: Any) -> TypeHint | None:
        """For a model that MLflow has loaded; None where no type hint says what it takes."""
        hinted = getattr(model.metadata, "_is_signature_from_type_hint", None)
        if hinted is None or not hinted():
            return None
        element, failed = attempted(_element_of, model)
        return None if failed else cls(element)

    def refusals(self, rows: list[Any]) -> list[Refusal]:
        """What is wrong with which row; nothing where the hint takes them all."""
        found: list[Refusal] = []
        for i, row in enumerate(rows):
            found += [[i, *refusal] for refusal in _refusals(self._element, row, [])]
            if len(found) >= MOST:
                break
        return found[:MOST]


def _element_of(model: Any) -> Any:
    (element,) = model.unwrap_python_model().predict_type_hints.input.__args__
    return element


def _refusals(hint: Any, value: Any, path: list[Any]) -> Iterator[list[Any]]:
    """What the pydantic classes of a hint say of a value; others are asked nothing: values are of
    their types already."""
    if hasattr(hint, "model_validate"):
        yield from _refusals_of_class(hint, value, path)
        return
    of: Any = getattr(hint, "__args__", ())
    if isinstance(value, list) and len(of) == 1:
        for i, each in enumerate(value):
            yield from _refusals(of[0], each, [*path, i])
    elif isinstance(value, dict) and len(of) == 2:
        for key, each in value.items():
            yield from _refusals(of[1], each, [*path, key])


def _refusals_of_class(of: Any, value: Any, path: list[Any]) -> Iterator[list[Any]]:
    try:
        of.model_validate(value, strict=True)  # as MLflow does
    except ValueError as error:  # pydantic's own is one, and has `errors`
        for each in getattr(error, "errors", list)():
            yield [[*path, *each["loc"]], _message(each)]


def _message(error: Any) -> str:
    if error["type"] == "missing":
        return "Required, and missing."
    if error["type"] in _OF_THE_AUTHOR:
        return "Refused by the model's own check."
    return "%s." % error["msg"].rstrip(".")
