"""What OpenAI's clients send -> the object that MLflow's agents and chat models take.

Only what means the same in another form is changed; what the model's signature doesn't know is
dropped later, by its contract (`gateway.contract.agents`).
"""

from __future__ import annotations

from typing import Any

from gateway.catalog import Catalog, is_version_number
from gateway.contract.agents import (
    CHAT,
    CHAT_AGENT,
    CHAT_MODEL,
    COMPLETIONS,
    EMBEDDINGS,
    RESPONSES_AGENT,
)
from gateway.errors import InvalidInput, Violation

TASKS = {
    "/v1/chat/completions": frozenset({CHAT_MODEL, CHAT_AGENT, CHAT}),
    "/v1/responses": frozenset({RESPONSES_AGENT}),
    "/v1/completions": frozenset({COMPLETIONS}),
    "/v1/embeddings": frozenset({EMBEDDINGS}),
}
"""Which tasks a path speaks."""


def path_of(task: str | None) -> str | None:
    """The path that speaks a task; None where none does."""
    return next((path for path, tasks in TASKS.items() if task in tasks), None)


def model_in(body: dict[str, Any]) -> str:
    """The model that a body names; raises InvalidInput."""
    model = body.get("model")
    if isinstance(model, str) and model:
        return model
    message = "Expected the name of a registered model, also as name@alias or name/version."
    raise InvalidInput((Violation(pointer="/model", message=message),))


def named(catalog: Catalog, model: str) -> tuple[str, str | None]:
    """The registered name and the selector of `name`, `name@alias` or `name/version`."""
    if model in catalog.models:
        return model, None
    for separator in ("/", "@"):  # a name may have an @, and none has a slash
        name, found, selector = model.rpartition(separator)
        if found and name and selector and (separator == "@" or is_version_number(selector)):
            return name, selector
    return model, None


def translated(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The object for the model behind that path."""
    given = {name: value for name, value in body.items() if value is not None and name != "model"}
    match path:
        case "/v1/responses":
            return _response(given)
        case "/v1/chat/completions":
            return _chat(given)
        case "/v1/completions":
            return _completion(given)
        case _:
            return given


def _response(given: dict[str, Any]) -> dict[str, Any]:
    """MLflow takes a list of items, OpenAI also a text; its instructions come before all."""
    asked = given.get("input")
    items = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    instructions = given.pop("instructions", None)
    if isinstance(instructions, str) and isinstance(items, list):
        items = [{"role": "system", "content": instructions}, *items]
    return given if items is None else {**given, "input": items}


def _chat(given: dict[str, Any]) -> dict[str, Any]:
    most = given.pop("max_completion_tokens", None)
    if most is not None:
        given.setdefault("max_tokens", most)
    messages = given.get("messages")
    if isinstance(messages, list):
        given["messages"] = [_with_text(each) for each in messages]
    return _with_stops(given)


def _with_text(message: Any) -> Any:
    """A message whose content is a list of texts, with the one text that MLflow takes."""
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list) or not content:
        return message
    texts = [each.get("text") for each in content if isinstance(each, dict)]
    if len(texts) < len(content) or not all(isinstance(text, str) for text in texts):
        return message
    return {**message, "content": "".join(map(str, texts))}


def _completion(given: dict[str, Any]) -> dict[str, Any]:
    prompt = given.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        given["prompt"] = prompt[0]
    return _with_stops(given)


def _with_stops(given: dict[str, Any]) -> dict[str, Any]:
    stop = given.get("stop")
    return {**given, "stop": [stop]} if isinstance(stop, str) else given
