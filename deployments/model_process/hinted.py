"""Why a model refuses rows: asked of its type hint's own classes, or of MLflow's classes of what
agents are asked, once a call has failed.

MLflow validates what such a model is called with, and says in one text what is wrong with all of
it. Here it is told apart, by row and member.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, List, get_origin

from .attempt import attempted

MOST = 50
"""So many refusals of a call are told."""

Refusal = List[Any]
"""`[row, path, message]`."""

# What the model's author wrote, who may have put the caller's value into it.
_OF_THE_AUTHOR = {"value_error", "assertion_error"}
_MISSING = {"missing", "value_error.missing"}  # as pydantic 2 and 1 call it


class TypeHint:
    """What the elements of a model's input are by its type hint."""

    def __init__(self, element: Any) -> None:
        self._element = element
        self.checks = _can_be_asked(element)
        """Whether its classes say all that is wrong; else MLflow's signature has to be enforced."""

    @classmethod
    def of(cls, model: Any) -> TypeHint | None:
        """For a model that MLflow has loaded; None where no type hint says what it takes."""
        hinted = getattr(model.metadata, "_is_signature_from_type_hint", None)
        if hinted is None or not hinted():
            return None
        element = attempted(_element_of, model)[0]
        return None if element is None else cls(element)

    def refusals(self, rows: list[Any]) -> list[Refusal]:
        """What is wrong with which row; nothing where the hint takes them all."""
        found: list[Refusal] = []
        for i, row in enumerate(rows):
            found += [[i, *refusal] for refusal in _refusals(self._element, row, [])]
            if len(found) >= MOST:
                break
        return found[:MOST]

    def dicts(self, value: Any) -> Any:
        """A value that the hint takes, as MLflow hands it to `predict_stream`: with dicts, where
        `predict` gets objects of the hint's classes. What the class has defaults for is there."""
        return _stored(self._element, value)


class AgentRequest:
    """What an agent is asked, as MLflow's loader reads it (3.17, `mlflow.pyfunc.loaders`)."""

    def __init__(self, loader: str) -> None:
        self._kind = loader.rpartition(".")[2]

    def refusals(self, rows: list[Any]) -> list[Refusal]:
        """What is wrong with which object; nothing where MLflow's classes take them all."""
        try:
            found = [[i, *each] for i, row in enumerate(rows) for each in self._refusals(row)]
        except ImportError:  # an MLflow that has the class elsewhere
            return []
        return found[:MOST]

    def _refusals(self, request: dict[str, Any]) -> Iterator[list[Any]]:
        if self._kind == "responses_agent":
            from mlflow.types.responses import ResponsesAgentRequest

            yield from _refusals_of_class(ResponsesAgentRequest, request, [], strict=False)
            return
        if self._kind == "chat_agent":
            yield from _refusals_of_chat_agent(request)
        else:
            yield from _refusals_of_chat_model(request)


def _refusals_of_chat_agent(request: dict[str, Any]) -> Iterator[list[Any]]:
    from mlflow.types.agent import ChatAgentMessage, ChatContext

    for i, message in enumerate(request.get("messages") or []):
        yield from _refusals_of_class(ChatAgentMessage, message, ["messages", i], strict=False)
    if "context" in request:
        yield from _refusals_of_class(ChatContext, request["context"], ["context"], strict=False)


def _refusals_of_chat_model(request: dict[str, Any]) -> Iterator[list[Any]]:
    from mlflow.types.llm import ChatMessage, ChatParams

    for i, message in enumerate(request.get("messages") or []):
        if not _is_read(ChatMessage, message):
            yield [["messages", i], "It isn't what MLflow's ChatMessage takes."]
    for name, value in request.items():
        if not _is_read(ChatParams, {name: value}):
            for path in _places_in_params(ChatParams, name, value):
                yield [path, "It isn't what MLflow's ChatParams take."]


def _is_read(of: Any, value: Any) -> bool:
    """Whether one of MLflow's dataclasses takes a value. Where in it the fault is it says in its
    text alone, which may have the caller's values."""
    try:
        of.from_dict(value)
    except (ValueError, TypeError):
        return False
    return True


def _places_in_params(of: Any, name: str, value: Any) -> list[list[Any]]:
    """Of a member that is refused, the elements that are refused alone; else itself."""
    elements = enumerate(value) if isinstance(value, list) else ()
    found = [[name, i] for i, each in elements if not _is_read(of, {name: [each]})]
    return found or [[name]]


def _element_of(model: Any) -> Any:
    (element,) = model.unwrap_python_model().predict_type_hints.input.__args__
    return element


def params_alone(signature: Any) -> Any:
    """What a signature says of params, None where it says nothing.

    MLflow (3.17) leaves inputs to the hint when it predicts. When it streams it enforces the
    signature that it made of the hint, which takes no object but in two lists, and neither the
    class's defaults nor its aliases: without it, both ask the hint.
    """
    from mlflow.models import ModelSignature

    return None if signature.params is None else ModelSignature(params=signature.params)


def _can_be_asked(hint: Any) -> bool:
    """Whether all classes of a hint can: those of pydantic 1 have no `model_validate`."""
    if hasattr(hint, "model_validate"):
        return True
    return not hasattr(hint, "__fields__") and all(
        _can_be_asked(each) for each in getattr(hint, "__args__", ())
    )


def _refusals(hint: Any, value: Any, path: list[Any]) -> Iterator[list[Any]]:
    """What the pydantic classes of a hint say of a value, and of null where none may be; others
    are asked nothing: values are of their types already."""
    hint = _of_some(hint, value)
    if hint is None:
        return
    if hasattr(hint, "model_validate") or hasattr(hint, "parse_obj"):
        yield from _refusals_of_class(hint, value, path)
        return
    of: Any = getattr(hint, "__args__", ())
    if value is None and hint is not Any:
        yield [path, "Expected a value, and not null."]
    elif isinstance(value, list) and len(of) == 1:
        for i, each in enumerate(value):
            yield from _refusals(of[0], each, [*path, i])
    elif isinstance(value, dict) and len(of) == 2:
        for key, each in value.items():
            yield from _refusals(of[1], each, [*path, key])


def _of_some(hint: Any, value: Any) -> Any:
    """What a value is by a hint, of `X | None` the X; None where MLflow takes anything."""
    of = getattr(hint, "__args__", ())
    if not of or hasattr(hint, "model_validate") or get_origin(hint) in (list, dict):
        return hint
    some = [each for each in of if each is not type(None)]
    return some[0] if len(some) == 1 and value is not None else None


def _stored(hint: Any, value: Any) -> Any:
    """A value with dicts for the objects that MLflow would make of it by its hint."""
    hint = _of_some(hint, value)
    if hint is None:
        return value
    if hasattr(hint, "model_validate"):
        return _dumped(hint(**value))  # as MLflow makes it
    of: Any = getattr(hint, "__args__", ())
    if isinstance(value, list) and len(of) == 1:
        return [_stored(of[0], each) for each in value]
    if isinstance(value, dict) and len(of) == 2:
        return {key: _stored(of[1], each) for key, each in value.items()}
    return value


def _dumped(value: Any) -> Any:
    """An object of pydantic as a dict: with its defaults, and without what is None since nobody
    said it."""
    if hasattr(value, "model_fields_set"):
        said = value.model_fields_set
        members = {name: getattr(value, name) for name in type(value).model_fields}
        members.update(value.model_extra or {})
        return {n: _dumped(each) for n, each in members.items() if each is not None or n in said}
    if isinstance(value, list):
        return [_dumped(each) for each in value]
    if isinstance(value, dict):
        return {key: _dumped(each) for key, each in value.items()}
    return value


def _refusals_of_class(
    of: Any, value: Any, path: list[Any], *, strict: bool = True
) -> Iterator[list[Any]]:
    try:  # as MLflow does
        if hasattr(of, "model_validate"):
            of.model_validate(value, strict=strict)
        else:
            of.parse_obj(value)
    except ValueError as error:  # pydantic's own is one, and has `errors`
        for each in getattr(error, "errors", list)():
            yield [[*path, *_within(value, each)], _message(each)]


def _within(value: Any, error: Any) -> list[Any]:
    """Where in a value an error is. What pydantic says of it has the names of a union's branches
    as well, and of what is missing the name."""
    found = []
    for part in error["loc"]:
        has = isinstance(value, dict) and part in value
        if has or (isinstance(value, list) and isinstance(part, int) and part < len(value)):
            found.append(part)
            value = value[part]
    return [*found, error["loc"][-1]] if error["type"] in _MISSING else found


def _message(error: Any) -> str:
    if error["type"] in _MISSING:
        return "Required, and missing."
    if error["type"] in _OF_THE_AUTHOR:
        return "Refused by the model's own check."
    return "%s." % error["msg"].rstrip(".")
