"""What agents say, as OpenAI's objects: whole, and piece by piece."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import InvalidModelOutput
from gateway.http.protocols.openai.completions import Completions
from gateway.http.protocols.openai.embeddings import Embeddings
from gateway.http.protocols.openai.requests import named, translated
from gateway.http.protocols.openai.responses import Responses
from tests.support.catalogs import catalog, served, version

DELTA = {"type": "response.output_text.delta", "item_id": "a", "delta": "Hi"}


def done(item_id: str | None, text: str = "Hi") -> dict[str, Any]:
    part = {"type": "output_text", "text": text}
    item = {"type": "message", "id": item_id, "role": "assistant", "content": [part]}
    return {"type": "response.output_item.done", "item": item}


def told(*events: Any) -> list[dict[str, Any]]:
    responses = Responses("m")
    made = [each for event in events for each in responses.events(event)]
    return [*made, *responses.last()]


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_what_an_agent_leaves_out_is_put_in() -> None:
    """Deltas and a finished item become a stream with the life of each item and of the whole."""
    events = told(DELTA, done("a"))
    assert kinds(events) == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "Hi"


def test_an_item_that_ends_under_another_id_is_the_one_that_began() -> None:
    """Some agents give deltas and the item ids of their own: the client would see two."""
    events = told(DELTA, done("b"))
    assert {event["item"]["id"] for event in events if "item" in event} == {"a"}


def test_text_without_an_end_is_ended() -> None:
    """An agent that yields deltas alone has said an item nevertheless."""
    events = told(DELTA, {**DELTA, "delta": "!"})
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "Hi!"


def test_an_agents_own_life_is_kept() -> None:
    """A stream that is complete already gets numbers, and keeps its id."""
    life = {"id": "resp_1", "created_at": 1, "output": []}
    events = told(
        {"type": "response.created", "response": life},
        done("a"),
        {"type": "response.completed", "response": {**life, "usage": {"total_tokens": 3}}},
    )
    assert kinds(events) == ["created", "output_item.added", "output_item.done", "completed"]
    assert events[-1]["response"]["id"] == "resp_1"
    assert events[-1]["response"]["usage"] == {"total_tokens": 3}


def test_calls_of_functions_come_with_their_arguments() -> None:
    """A function call is added before it is done, under an id."""
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    events = told({"type": "response.output_item.done", "item": call})
    added, finished = events[2], events[3]
    assert added["item"]["call_id"] == finished["item"]["call_id"] == "c"
    assert added["output_index"] == finished["output_index"] == 0


@pytest.mark.parametrize("event", ["text", {"no": "type"}, 1, {"output": None}, {"output": 5}])
def test_what_is_no_event_is_the_models_fault(event: Any) -> None:
    """It is an error, and no event that clients choke on."""
    with pytest.raises(InvalidModelOutput):
        told(event)


@pytest.mark.parametrize(
    "answer",
    [
        "Hi",
        {"messages": [{"role": "tool", "content": "x"}, {"role": "assistant", "content": "Hi"}]},
        {"choices": [{"message": {"role": "assistant", "content": "Hi"}}]},
        {"content": "Hi", "type": "ai"},
    ],
)
def test_every_form_of_an_answer_is_a_chat_completion(answer: Any) -> None:
    """A text, an agent's messages, choices without the rest, a message."""
    whole = Completions("m", is_chat=True).whole(answer)
    assert (whole["object"], whole["model"]) == ("chat.completion", "m")
    assert whole["choices"][0]["message"]["content"] == "Hi"
    assert whole["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("answer", [{"choices": ["Hi"]}, {"choices": [None]}, {"messages": []}, 5])
def test_what_is_no_chat_completion_is_the_models_fault(answer: Any) -> None:
    """Whole or in a stream it is an error that says so."""
    completions = Completions("m", is_chat=True)
    with pytest.raises(InvalidModelOutput):
        completions.whole(answer)
    with pytest.raises(InvalidModelOutput):
        list(completions.chunks(answer))


def test_chunks_are_of_one_completion_and_end_once() -> None:
    """Every event is a chunk of the same id; the reason of the end is told once."""
    completions = Completions("m", is_chat=True)
    events = ["a", {"delta": {"role": "assistant", "content": "b"}}]
    chunks = [each for event in events for each in completions.chunks(event)]
    chunks += completions.last()
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == ["a", "b", None]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "stop"]
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_what_means_the_same_is_translated() -> None:
    """Of a request what MLflow has in another form; null is left out."""
    chat = translated(
        "/v1/chat/completions",
        {
            "model": "m",
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
            "max_completion_tokens": 3,
            "stop": "x",
            "top_p": None,
        },
    )
    message = {"role": "user", "content": "Hi"}
    assert chat == {"messages": [message], "max_tokens": 3, "stop": ["x"]}


def test_models_have_three_names() -> None:
    """A registered name, also with an alias or a version's number; exact names come first."""
    known = catalog(served(version(1), name="a"), served(version(1), name="a@b"))
    assert named(known, "a") == ("a", None)
    assert named(known, "a@b") == ("a@b", None)
    assert named(known, "a@champion") == ("a", "champion")
    assert named(known, "a@b/3") == ("a@b", "3")
    assert named(known, "a@b@champion") == ("a@b", "champion")
    assert named(known, "a/2") == ("a", "2")
    assert named(known, "a/b") == ("a/b", None)


@pytest.mark.parametrize("answer", [[0.5, 1.0], [[0.5, 1.0]]])
def test_a_vector_is_the_embedding_of_one_text(answer: Any) -> None:
    """Bare or in a list of one, as models give it."""
    assert Embeddings("m", texts=1).whole(answer)["data"] == [
        {"object": "embedding", "index": 0, "embedding": [0.5, 1.0]}
    ]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([[0.5, 1.0]], "answered 1 embeddings to 2 texts"),
        ({"data": []}, "answered 0 embeddings to 2 texts"),
        ({"vectors": [[0.5]]}, "no list of embeddings"),
        ("words", "no list of embeddings"),
    ],
)
def test_what_is_not_an_embedding_for_each_text_is_no_answer(answer: Any, said: str) -> None:
    """A client would give a text the vector of another, or an empty one."""
    with pytest.raises(InvalidModelOutput, match=said):
        Embeddings("m", texts=2).whole(answer)
