"""OpenAI's own Python client, with nothing but another `base_url`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest
from fastapi import FastAPI

from tests.support.agent_models import WORDS

MESSAGES: Any = [{"role": "user", "content": "Hi"}]


@pytest.fixture
async def client(agents_app: FastAPI) -> AsyncIterator[openai.AsyncOpenAI]:
    transport = httpx2.ASGITransport(agents_app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport) as http:
        yield openai.AsyncOpenAI(
            base_url="http://in-process/v1",
            api_key="none",  # pragma: allowlist secret
            http_client=http,
            max_retries=0,
        )


async def test_models_are_listed(client: openai.AsyncOpenAI) -> None:
    """What can be asked by these routes is listed, and found by all of its names."""
    listed = [model.id async for model in client.models.list()]
    assert {"chat", "chat agent", "responses"} <= set(listed)
    assert "ticker" not in listed
    assert (await client.models.retrieve("chat/1")).id == "chat/1"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("ticker")


@pytest.mark.parametrize("model", ["chat", "chat/1", "chat agent"])
async def test_a_chat_is_completed(client: openai.AsyncOpenAI, model: str) -> None:
    """A ChatModel's and a ChatAgent's answers are chat completions, by whatever name."""
    answer = await client.chat.completions.create(
        model=model, messages=MESSAGES, temperature=0.5, max_completion_tokens=7, seed=1
    )
    assert (answer.object, answer.model) == ("chat.completion", model)
    message = answer.choices[0].message
    assert message.role == "assistant"
    assert (message.content or "").startswith("Hi")
    if model != "chat agent":
        assert "'max_tokens': 7" in (message.content or "")
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("model", ["chat", "chat agent"])
async def test_a_chat_is_streamed(client: openai.AsyncOpenAI, model: str) -> None:
    """Chunks come in order, of one completion, and the last one says why it ended."""
    stream = await client.chat.completions.create(model=model, messages=MESSAGES, stream=True)
    chunks = [chunk async for chunk in stream]
    told = [chunk.choices[0].delta.content for chunk in chunks]
    assert [text for text in told if text] == list(WORDS)
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_a_model_that_cant_stream_is_one_chunk(client: openai.AsyncOpenAI) -> None:
    """Its whole answer comes as a chunk."""
    stream = await client.chat.completions.create(model="whole", messages=MESSAGES, stream=True)
    told = [chunk.choices[0].delta.content async for chunk in stream]
    assert "".join(text or "" for text in told) == "all at once"


async def test_a_response_is_created(client: openai.AsyncOpenAI) -> None:
    """A ResponsesAgent answers a text with instructions as a list of messages."""
    answer = await client.responses.create(
        model="responses", input="Hi", instructions="Be short.", metadata={"a": "b"}
    )
    assert answer.id
    assert answer.status == "completed"
    assert "'content': 'Be short.', 'role': 'system'" in answer.output_text
    assert "'content': 'Hi', 'role': 'user'" in answer.output_text


async def test_a_response_is_streamed(client: openai.AsyncOpenAI) -> None:
    """The events of an agent come as they are, in a stream that is complete."""
    stream = await client.responses.create(model="responses", input="Hi", stream=True)
    events = [event async for event in stream]
    assert events[0].type == "response.created"
    deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
    assert deltas == list(WORDS)
    assert events[-1].type == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_the_helper_for_streams_works(client: openai.AsyncOpenAI) -> None:
    """`responses.stream()`, which builds the answer from the events, has it at the end."""
    async with client.responses.stream(model="responses", input="Hi") as stream:
        deltas = [e.delta async for e in stream if e.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert deltas == list(WORDS)
    assert final.output_text == "".join(WORDS)


async def test_errors_are_those_of_the_client(client: openai.AsyncOpenAI) -> None:
    """What is wrong is an exception of the client's, with its code, its place and its message."""
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(model="nobody", messages=MESSAGES)
    assert missing.value.code == "model_not_found"
    wrong: Any = [{"role": "user", "content": 1}]
    with pytest.raises(openai.UnprocessableEntityError) as invalid:
        await client.chat.completions.create(model="chat", messages=wrong)
    assert invalid.value.param == "messages.0.content"
    with pytest.raises(openai.ConflictError) as elsewhere:
        await client.responses.create(model="chat", input="Hi")
    assert "/v1/chat/completions" in elsewhere.value.message
