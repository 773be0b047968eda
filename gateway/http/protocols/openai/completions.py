"""Answers of chat models, agents and language models -> OpenAI's objects, whole and in chunks.

What is one already gets what is missing (id, model, created); what MLflow or LangChain have in
another form (`messages`, `delta`, a text) is put into it. What else a model says stays beside.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any

from gateway.errors import InvalidModelOutput

_ASSISTANT = "assistant"


class Completions:
    """The answer to one request for the model that callers name so."""

    def __init__(self, model: str, *, is_chat: bool) -> None:
        self._is_chat = is_chat
        prefix = "chatcmpl" if is_chat else "cmpl"
        self._head = {
            "id": f"{prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }
        self._is_finished = False

    def whole(self, answer: Any) -> dict[str, Any]:
        """The whole answer as a `chat.completion` or a `text_completion`."""
        kind = "chat.completion" if self._is_chat else "text_completion"
        if isinstance(answer, dict) and isinstance(answer.get("choices"), list):
            choices = [self._finished(i, each) for i, each in enumerate(answer["choices"])]
            return {**self._head, "object": kind, **answer, "choices": choices}
        message, beside = self._message_in(answer)
        reason = beside.pop("finish_reason", None) or "stop"
        choice = {"index": 0, **self._said("message", message), "finish_reason": reason}
        return {**beside, **self._head, "object": kind, "choices": [choice]}

    def chunks(self, event: Any) -> Iterator[dict[str, Any]]:
        """What an event of the model is in a stream: a chunk, or nothing."""
        if isinstance(event, dict) and isinstance(event.get("choices"), list):
            choices = [_delta_of(i, each) for i, each in enumerate(event["choices"])]
            self._is_finished |= any(each.get("finish_reason") for each in choices)
            kind = "chat.completion.chunk" if self._is_chat else "text_completion"
            yield {**event, **self._head, "object": kind, "choices": choices}
            return
        message, beside = self._message_in(event)
        if message.get("role", _ASSISTANT) == _ASSISTANT:
            yield self._chunk(message, beside.pop("finish_reason", None), beside)

    def last(self) -> Iterator[dict[str, Any]]:
        """What ends a stream, where the model hasn't said so itself."""
        if not self._is_finished:
            yield self._chunk({}, "stop", {})

    def _chunk(
        self, message: dict[str, Any], reason: str | None, beside: dict[str, Any]
    ) -> dict[str, Any]:
        self._is_finished |= reason is not None
        kind = "chat.completion.chunk" if self._is_chat else "text_completion"
        choice = {"index": 0, **self._said("delta", message), "finish_reason": reason}
        return {**beside, **self._head, "object": kind, "choices": [choice]}

    def _said(self, name: str, message: dict[str, Any]) -> dict[str, Any]:
        return {name: message} if self._is_chat else {"text": message.get("content") or ""}

    def _finished(self, index: int, choice: Any) -> Any:
        if not isinstance(choice, dict):
            raise InvalidModelOutput("The model's answer has a choice that is no object.")
        return {"index": index, "finish_reason": "stop", **choice}

    def _message_in(self, said: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The message that a model gave in another form, and what it said beside."""
        if isinstance(said, str):
            return {"role": _ASSISTANT, "content": said}, {}
        if isinstance(said, dict):
            for name in ("messages", "delta", "message"):
                message = _last_of(said.get(name))
                if message is not None:
                    return message, {k: v for k, v in said.items() if k != name}
            if isinstance(said.get("content"), str):
                return {"role": _ASSISTANT, **said}, {}
        raise InvalidModelOutput("The model's answer is no chat completion, message or text.")


def _last_of(messages: Any) -> dict[str, Any] | None:
    """The message itself, or the assistant's last one: what comes before it are its tools'."""
    if isinstance(messages, dict):
        return messages
    if not isinstance(messages, list):
        return None
    told = [m for m in messages if isinstance(m, dict) and m.get("role") == _ASSISTANT]
    return told[-1] if told else None


def _delta_of(index: int, choice: Any) -> dict[str, Any]:
    """A choice of a chunk; of a whole answer that is the only event, its message."""
    if not isinstance(choice, dict):
        raise InvalidModelOutput("The model's answer has a choice that is no object.")
    if "message" in choice:
        choice = {**choice, "delta": choice["message"]}
        del choice["message"]
    return {"index": index, "finish_reason": None, **choice}
