"""Why a model's type hint refuses rows: asked of the hint's own classes, once a call has failed.

MLflow validates what a model made from type hints is called with, and says in one text what is wrong
with all of it. Here it is told apart, by row and member.
"""

from __future__ import annotations

from typing import Any, List

MOST = 50
"""So many refusals of a call are told."""

Refusal = List[Any]
"""`[row, path, message]`."""

# What the model's author wrote, who may have put the caller's value into it.
_OF_THE_AUTHOR = {"value_error", "assertion_error"}


class TypeHint:
    """What the elements of a model's input are by its type hint; None where there is nothing to ask."""

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter

    @classmethod
    def of(cls, model: Any) -> TypeHint | None:
        """For a model that MLflow has loaded."""
        hinted = getattr(model.metadata, "_is_signature_from_type_hint", None)
        if hinted is None or not hinted():
            return None
        try:
            import pydantic

            (element,) = model.unwrap_python_model().predict_type_hints.input.__args__
            return cls(pydantic.TypeAdapter(element))
        # A boundary: the hint is the model's own code, and anything may be wrong with it.
        except Exception:
            return None

    def refusals(self, rows: list[Any]) -> list[Refusal]:
        """What is wrong with which row; nothing where the hint takes them all."""
        import pydantic

        found: list[Refusal] = []
        for i, row in enumerate(rows):
            try:
                self._adapter.validate_python(row, strict=True)
            except pydantic.ValidationError as error:
                found += [[i, list(each["loc"]), _message(each)] for each in error.errors()]
            if len(found) >= MOST:
                break
        return found[:MOST]


def _message(error: Any) -> str:
    if error["type"] == "missing":
        return "Required, and missing."
    if error["type"] in _OF_THE_AUTHOR:
        return "Refused by the model's own check."
    return "%s." % error["msg"].rstrip(".")
