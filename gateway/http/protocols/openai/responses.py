"""Answers of ResponsesAgents -> OpenAI's Response objects, and streams that are complete.

MLflow's agents yield `response.output_text.delta` and `response.output_item.done`, and mostly
nothing else. OpenAI's clients build the answer from the events as they come, and refuse a stream
that doesn't begin with `response.created` or has a piece of an item that wasn't added before
(openai 3.51, `lib/streaming/responses/_responses.py`). So what an agent leaves out is put in: the
life of the response, of each item and of its text, their indices, and a number for each event.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any

from gateway.errors import InvalidModelOutput

_DELTA = "response.output_text.delta"
_ADDED = "response.output_item.added"
_ITEM_DONE = "response.output_item.done"
_PART_ADDED = "response.content_part.added"
_ARGUMENTS = "response.function_call_arguments."
_LIFE = frozenset({"response.created", "response.in_progress", "response.queued"})
_ENDS = frozenset({"response.completed", "response.failed", "response.incomplete"})

Event = dict[str, Any]


class _Item:
    """An item of the output that has begun: where it is, and the text that came so far."""

    def __init__(self, index: int, item_id: str | None, *, is_ours: bool) -> None:
        self.index = index
        self.id = item_id
        self.is_ours = is_ours
        self.text: str | None = None
        self.is_done = False


class Responses:
    """The answer to one request for the model that callers name so."""

    def __init__(self, model: str) -> None:
        self._head = {
            "id": f"resp_{secrets.token_hex(16)}",
            "object": "response",
            "created_at": int(time.time()),
            "model": model,
        }
        self._items: list[_Item] = []
        self._output: dict[int, Any] = {}
        self._number = 0
        self._has_begun = False
        self._has_ended = False

    def whole(self, answer: Any) -> dict[str, Any]:
        """The whole answer as a Response."""
        if not isinstance(answer, dict) or not isinstance(answer.get("output"), list):
            raise InvalidModelOutput("The model's answer is no response: it has no output.")
        given = {name: value for name, value in answer.items() if value is not None}
        return self._response("completed", **given)

    def events(self, event: Any) -> Iterator[Event]:
        """What an event of the agent is in the stream: itself, and what must come before."""
        if (
            isinstance(event, dict)
            and "type" not in event
            and isinstance(event.get("output"), list)
        ):
            yield from self._of_whole(event)  # of an agent that can't stream
            return
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            raise InvalidModelOutput("The model's stream has an event without a type.")
        kind = event["type"]
        if not self._has_begun and kind != "response.created":
            yield from self._begun()
        self._has_begun = True
        if kind in _LIFE:
            yield self._lived(event)
        elif kind in _ENDS:
            yield from self._ended(event)
        else:
            yield from self._of_item(kind, event)

    def last(self) -> Iterator[Event]:
        """What ends the stream, where the agent hasn't said so itself."""
        if not self._has_begun:
            yield from self._begun()
        if not self._has_ended:
            yield from self._ended({"type": "response.completed"})

    def _of_whole(self, answer: dict[str, Any]) -> Iterator[Event]:
        for item in answer["output"]:
            yield from self.events({"type": _ITEM_DONE, "item": item})
        beside = {name: value for name, value in answer.items() if name != "output"}
        yield from self.events({"type": "response.completed", "response": beside})

    def _begun(self) -> Iterator[Event]:
        self._has_begun = True
        for kind in ("response.created", "response.in_progress"):
            yield self._numbered({"type": kind, "response": self._response("in_progress")})

    def _lived(self, event: Event) -> Event:
        """The agent's own word of its life; who it is stays as it was said first."""
        told = self._said_in(event)
        if event["type"] == "response.created":
            self._head |= {name: told[name] for name in ("id", "created_at") if name in told}
        return self._numbered({**event, "response": self._response("in_progress", **told)})

    def _ended(self, event: Event) -> Iterator[Event]:
        for item in self._items:
            if item.is_ours and not item.is_done:
                yield from self._finished(item)
        self._has_ended = True
        told = self._said_in(event)
        if self._output:
            told["output"] = [self._output[index] for index in sorted(self._output)]
        status = event["type"].removeprefix("response.")
        yield self._numbered({**event, "response": self._response(status, **told)})

    def _of_item(self, kind: str, event: Event) -> Iterator[Event]:
        if kind == _ADDED:
            added = self._add(_id_of(event.get("item")), is_ours=False)
            yield self._numbered({**event, "output_index": added.index})
        elif kind == _ITEM_DONE:
            yield from self._item_done(event)
        elif kind == _DELTA:
            yield from self._delta(event)
        elif (item := self._known(event.get("item_id"))) is not None:
            if kind == _PART_ADDED:
                item.text = item.text or ""
            yield self._numbered({"content_index": 0, **event, "output_index": item.index})
        elif not kind.startswith(_ARGUMENTS):  # those of a call that isn't there yet come with it
            yield self._numbered(event)

    def _delta(self, event: Event) -> Iterator[Event]:
        item = self._known(event.get("item_id"))
        if item is None:
            item = self._add(event.get("item_id") or _new_id("msg"), is_ours=True)
            yield self._numbered(
                {"type": _ADDED, "output_index": item.index, "item": _message(item, "in_progress")}
            )
        if item.text is None:
            item.text = ""
            part = {"type": "output_text", "text": "", "annotations": []}
            yield self._part(_PART_ADDED, item, part=part)
        item.text += str(event.get("delta", ""))
        placed = {"content_index": 0, "logprobs": [], **event}
        yield self._numbered({**placed, "item_id": item.id, "output_index": item.index})

    def _item_done(self, event: Event) -> Iterator[Event]:
        done = event.get("item")
        if not isinstance(done, dict):
            raise InvalidModelOutput("The model's stream has an item that is no object.")
        item = self._known(done.get("id")) or self._open_message(done)
        if item is None or item.is_done:
            item = self._add(done.get("id") or _new_id("item"), is_ours=True)
            begun: Event = {"content": []} if done.get("type") == "message" else {}
            begun |= {"id": item.id, "status": "in_progress"}
            yield self._numbered(
                {"type": _ADDED, "output_index": item.index, "item": {**done, **begun}}
            )
        elif item.is_ours and item.text is not None:
            yield from self._text_done(item)
        item.is_done = True
        self._output[item.index] = {"status": "completed", **done, "id": item.id}
        yield self._numbered(
            {**event, "output_index": item.index, "item": self._output[item.index]}
        )

    def _open_message(self, done: dict[str, Any]) -> _Item | None:
        """The message whose text has come under another id, as some agents have it."""
        if done.get("type") != "message":
            return None
        return next((i for i in self._items if i.is_ours and not i.is_done), None)

    def _finished(self, item: _Item) -> Iterator[Event]:
        """The end of an item that the agent didn't end."""
        message = _message(item, "completed")
        yield from self._item_done({"type": _ITEM_DONE, "item": message})

    def _text_done(self, item: _Item) -> Iterator[Event]:
        part: Event = {"type": "output_text", "text": item.text, "annotations": []}
        yield self._part("response.output_text.done", item, text=item.text, logprobs=[])
        yield self._part("response.content_part.done", item, part=part)

    def _part(self, kind: str, item: _Item, **said: Any) -> Event:
        where = {"item_id": item.id, "output_index": item.index, "content_index": 0}
        return self._numbered({"type": kind, **where, **said})

    def _known(self, item_id: Any) -> _Item | None:
        if item_id is None:
            return None
        return next((each for each in self._items if each.id == item_id), None)

    def _add(self, item_id: str | None, *, is_ours: bool) -> _Item:
        item = _Item(len(self._items), item_id, is_ours=is_ours)
        self._items.append(item)
        return item

    def _said_in(self, event: Event) -> dict[str, Any]:
        told = event.get("response")
        return {k: v for k, v in told.items() if v is not None} if isinstance(told, dict) else {}

    def _response(self, status: str, **said: Any) -> dict[str, Any]:
        usual: dict[str, Any] = {
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "output": [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }
        return {**usual, **said, **self._head}

    def _numbered(self, event: Event) -> Event:
        self._number += 1
        return {**event, "sequence_number": self._number - 1}


def _message(item: _Item, status: str) -> dict[str, Any]:
    text = {"type": "output_text", "text": item.text or "", "annotations": []}
    content = [text] if status == "completed" else []
    base = {"id": item.id, "type": "message", "role": "assistant"}
    return {**base, "status": status, "content": content}


def _id_of(item: Any) -> str | None:
    return item.get("id") if isinstance(item, dict) else None


def _new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(16)}"
