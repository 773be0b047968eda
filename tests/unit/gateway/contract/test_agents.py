"""What a task makes of a signature: requests are checked as objects, answers are whole."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from mlflow.types.llm import (
    CHAT_MODEL_INPUT_SCHEMA,
    CHAT_MODEL_OUTPUT_SCHEMA,
    EMBEDDING_MODEL_INPUT_SCHEMA,
)

from gateway.contract import Contract, differences
from gateway.contract.agents import CHAT_MODEL, EMBEDDINGS, asks_for_stream
from gateway.errors import InvalidInput

HELLO = {"messages": [{"role": "user", "content": "Hi"}]}


def contract(task: str) -> Contract:
    inputs = EMBEDDING_MODEL_INPUT_SCHEMA if task == EMBEDDINGS else CHAT_MODEL_INPUT_SCHEMA
    signature = {"inputs": inputs.to_json(), "outputs": CHAT_MODEL_OUTPUT_SCHEMA.to_json()}
    return Contract.from_signature({**signature, "task": task})


def objects(task: str, body: Any) -> list[dict[str, Any]]:
    """What the model is called with, call by call."""
    frames = contract(task).parse(orjson.dumps(body)).frames
    assert all(frame.whole and frame.layout == "record" for _, frame in frames)
    return [frame.columns[0][0] for _, frame in frames]


def test_an_object_is_a_call_of_what_was_sent() -> None:
    """Absent and null members stay away, unknown ones are dropped, inner ones stay."""
    sent = {**HELLO, "top_p": None, "model": "m", "temperature": 1}
    assert objects(CHAT_MODEL, sent) == [{**HELLO, "temperature": 1.0}]
    assert objects(CHAT_MODEL, [HELLO, HELLO]) == [HELLO, HELLO]
    message = {"role": "user", "content": "Hi", "more": [1]}
    assert objects(CHAT_MODEL, {"messages": [message]}) == [{"messages": [message]}]


def test_an_answer_is_whole() -> None:
    """Whatever the signature declares."""
    answer = {"any": [{"thing": float("nan")}]}
    rendered = contract(CHAT_MODEL).render([(range(1), ("values", [answer]))], 1)
    assert orjson.loads(rendered) == [{"any": [{"thing": None}]}]


@pytest.mark.parametrize("given", ["a", ["a", "b"]])
def test_a_text_or_texts_are_embedded(given: Any) -> None:
    """The signature declares a text alone."""
    assert objects(EMBEDDINGS, {"input": given, "encoding_format": "base64"}) == [{"input": given}]


@pytest.mark.parametrize("given", [1, [1], [], {"a": 1}])
def test_nothing_else_is_embedded(given: Any) -> None:
    """It is refused with its place."""
    with pytest.raises(InvalidInput) as refused:
        objects(EMBEDDINGS, {"input": given})
    assert refused.value.violations[0].pointer == "/input"


def test_an_agent_keeps_its_own_contract() -> None:
    """The next version of the same task breaks nothing."""
    assert differences(contract(CHAT_MODEL), contract(CHAT_MODEL)) == ()


@pytest.mark.parametrize(
    ("body", "asks"),
    [
        (b'{"stream": true}', True),
        (b'{"stream": 1}', False),
        (b'["stream"]', False),
        (b'{"stream"', False),
    ],
)
def test_a_stream_is_asked_for_by_true(body: bytes, asks: bool) -> None:
    """And by nothing else; what is no JSON is told by who reads it."""
    assert asks_for_stream(body) is asks
