"""Agents and chat models: what their tasks mean for requests and answers.

MLflow writes what such a model speaks into its MLmodel file (`metadata.task`). For these one
request is one call, with one object: its declared members are checked, absent and null ones stay
away, unknown ones are dropped as OpenAI's servers drop them, and the answer is whatever object the
model gives. Their signatures are MLflow's own, and say less than the objects hold: a ResponsesAgent
declares of each output item only its `type`, a tool has `type` and whatever else it needs.
"""

from __future__ import annotations

from dataclasses import replace

import orjson

from gateway.contract.types import (
    ArrayOf,
    Extras,
    Field,
    MapOf,
    ObjectOf,
    Rows,
    TextOrTexts,
    Type,
)

CHAT_MODEL = "agent/v1/chat"
CHAT_AGENT = "agent/v2/chat"
RESPONSES_AGENT = "agent/v1/responses"
CHAT = "llm/v1/chat"
COMPLETIONS = "llm/v1/completions"
EMBEDDINGS = "llm/v1/embeddings"

TASKS = frozenset({CHAT_MODEL, CHAT_AGENT, RESPONSES_AGENT, CHAT, COMPLETIONS, EMBEDDINGS})
"""The tasks of which a request is one object (MLflow 3.17, `mlflow/pyfunc/model.py` and
`mlflow/transformers/llm_inference_utils.py`)."""

AGENTS = frozenset({CHAT_MODEL, CHAT_AGENT, RESPONSES_AGENT})
"""Those that MLflow's own agent classes write: their loaders take the object as it is."""

STREAM = "stream"
"""The member of a body by which a caller asks for a stream, as OpenAI's clients do."""


def asks_for_stream(body: bytes) -> bool:
    """Whether a body of one object says `"stream": true`."""
    if b'"stream"' not in body:
        return False
    try:
        said = orjson.loads(body)
    except ValueError:  # told by who reads it
        return False
    return isinstance(said, dict) and said.get(STREAM) is True


def agent_inputs(inputs: Rows, task: str) -> Rows:
    """What a request of the task may hold.

    Inside of an object, members that aren't declared go to an agent as they are; for the other
    tasks MLflow enforces the signature, which refuses them, so they are dropped.
    """
    extras: Extras = "kept" if task in AGENTS else "dropped"
    fields = tuple(replace(f, type=_opened(f.type, extras)) for f in inputs.fields)
    if task == EMBEDDINGS:  # a text or a list of texts, of which the signature knows the text
        fields = tuple(replace(f, type=TextOrTexts()) if f.name == "input" else f for f in fields)
    return replace(inputs, fields=fields, extras="dropped")


def agent_outputs(outputs: Rows | None) -> Rows | None:
    """What an answer may hold, to be documented: nothing that is declared must be there (MLflow
    leaves out what is None), and more may be."""
    if outputs is None:
        return None
    fields = tuple(Field(f.name, _optional(f.type), required=False) for f in outputs.fields)
    if not outputs.named and len(fields) == 1:  # a ResponsesAgent's answer is one object
        fields = (replace(fields[0], required=True),)
    return replace(outputs, fields=fields, extras="kept")


def _opened(type_: Type, extras: Extras) -> Type:
    match type_:
        case ArrayOf(items):
            return ArrayOf(_opened(items, extras))
        case MapOf(values):
            return MapOf(_opened(values, extras))
        case ObjectOf(fields):
            opened = (replace(f, type=_opened(f.type, extras)) for f in fields)
            return ObjectOf(tuple(opened), extras)
        case _:
            return type_


def _optional(type_: Type) -> Type:
    match type_:
        case ArrayOf(items):
            return ArrayOf(_optional(items))
        case MapOf(values):
            return MapOf(_optional(values))
        case ObjectOf(fields):
            optional = (Field(f.name, _optional(f.type), required=False) for f in fields)
            return ObjectOf(tuple(optional), "kept")
        case _:
            return type_
