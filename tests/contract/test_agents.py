"""Agents and streams, as a caller of the in-process gateway has them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import mlflow
import pytest
from fastapi import FastAPI

from gateway.catalog import Catalog
from tests.support import agent_models

HELLO = {"messages": [{"role": "user", "content": "Hi"}]}
ASK = {"input": [{"role": "user", "content": "Hi"}]}
EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture
async def gateway(agents_app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(agents_app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://in-process") as made:
        yield made


def ticks(log: Path, count: int, pause_s: float = 0.0, fails_at: int = -1) -> dict[str, Any]:
    return {"log": str(log), "count": count, "pause_s": pause_s, "fails_at": fails_at}


def events_of(response: httpx.Response) -> list[Any]:
    """The events of a stream that ended as it should."""
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    *data, done = [line for line in response.text.split("\n\n") if line.startswith("data: ")]
    assert done == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in data]


async def loaded(gateway: httpx.AsyncClient, name: str, body: Any) -> None:
    """The model's deadline is short: have it loaded before."""
    async with asyncio.timeout(120):
        while (await gateway.post(f"/models/{name}/predict", json=body)).status_code == 503:
            pass  # each waits for a part of the deadline


async def answered(gateway: httpx.AsyncClient, name: str, body: Any) -> Any:
    response = await gateway.post(f"/models/{name}/predict", json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def test_absent_members_are_absent(gateway: httpx.AsyncClient) -> None:
    """A chat model sees the members that were sent, with no NaN for the others; null is absent."""
    body = {**HELLO, "stream": False, "top_p": None}
    (answer,) = await answered(gateway, "chat", body)
    # What it has beside are defaults of MLflow's.
    told = answer["choices"][0]["message"]["content"]
    assert told == "Hi: {'temperature': 1.0, 'n': 1, 'stream': False}"
    assert answer["custom_outputs"] == {"a": 1}
    (answer,) = await answered(gateway, "chat", {**HELLO, "temperature": 2})
    assert "'temperature': 2.0" in answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize("headers", [{}, EVENTS])
async def test_what_mlflow_s_classes_refuse_is_the_caller_s_to_mend(
    gateway: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    """A message that the signature lets pass and MLflow's class doesn't is 422 with its place."""
    body = {"messages": [*HELLO["messages"], {"role": "user"}]}
    response = await gateway.post("/models/chat/predict", json=body, headers=headers)
    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["pointer"] == "/messages/1"


async def test_whole_objects_come_back(
    gateway: httpx.AsyncClient, agents_catalog: Catalog, agents_uri: str
) -> None:
    """Of an agent's answer nothing is left out, whatever its signature declares: it is MLflow's."""
    model = mlflow.pyfunc.load_model("models:/responses/1")
    (answer,) = await answered(gateway, "responses", ASK)
    assert answer == model.predict(ASK)
    model = mlflow.pyfunc.load_model("models:/chat agent/1")
    body = {**HELLO, "context": {"user_id": "u"}, "custom_inputs": {"k": [1, None]}}
    assert await answered(gateway, "chat agent", body) == [model.predict(body)]


async def test_each_element_of_a_list_is_a_call(gateway: httpx.AsyncClient) -> None:
    """A list of requests has an answer for each, in order."""
    bodies = [{"messages": [{"role": "user", "content": str(i)}]} for i in range(3)]
    answers = await answered(gateway, "chat", bodies)
    told = [answer["choices"][0]["message"]["content"] for answer in answers]
    assert [text.partition(":")[0] for text in told] == ["0", "1", "2"]


async def test_what_openai_clients_send_is_taken(gateway: httpx.AsyncClient) -> None:
    """Unknown members are dropped, and tools keep all of theirs though their `type` alone is
    declared."""
    body = {
        **ASK,
        "model": "m",
        "service_tier": "auto",
        "tools": [{"type": "function", "name": "f", "parameters": {}}],
    }
    (answer,) = await answered(gateway, "responses", body)
    told = answer["output"][0]["content"][0]["text"]
    assert "'name': 'f'" in told
    assert "service_tier" not in told


async def test_wrong_members_are_refused(gateway: httpx.AsyncClient) -> None:
    """What is declared is checked, with a pointer to what is wrong."""
    body = {"messages": [{"role": 1, "content": "Hi"}], "temperature": "hot"}
    response = await gateway.post("/models/chat/predict", json=body)
    assert response.status_code == 422
    pointers = [error["pointer"] for error in response.json()["errors"]]
    assert pointers == ["/messages/0/role", "/temperature"]


async def test_documented_examples_are_answered(
    gateway: httpx.AsyncClient, agents_catalog: Catalog
) -> None:
    """The example that the documentation shows is the model's own, and is answered."""
    for name in ("chat", "chat agent", "responses"):
        example = agents_catalog.model(name).request_example()
        assert example == agents_catalog.model(name).versions[0].example
        assert await answered(gateway, name, example)


async def test_agents_answer_side_by_side(gateway: httpx.AsyncClient) -> None:
    """As many calls go on at once as the tag says, in a model that was loaded in the main thread;
    one that hangs or has no caller any more holds up none of the others."""
    await loaded(gateway, "slow", HELLO)
    hung = {"messages": [{"role": "user", "content": "hang"}]}
    hanging = asyncio.create_task(gateway.post("/models/slow/predict", json=hung))
    left = asyncio.create_task(gateway.post("/models/slow/predict", json=hung))
    await asyncio.sleep(0.2)
    left.cancel()
    answers = await asyncio.gather(*(answered(gateway, "slow", HELLO) for _ in range(8)))
    told = {answer[0]["choices"][0]["message"]["content"] for answer in answers}
    assert told <= {"1 True", "2 True"}  # beside the two that hang
    assert "2 True" in told
    assert (await hanging).status_code == 504


@pytest.mark.parametrize(
    ("name", "body", "where"),
    [
        ("chat", HELLO, ("choices", 0, "delta", "content")),
        ("chat agent", HELLO, ("delta", "content")),
    ],
)
async def test_an_agent_streams(
    gateway: httpx.AsyncClient, name: str, body: Any, where: tuple[Any, ...]
) -> None:
    """Asked by its body or by `Accept`, an agent's answer comes as the events that it yields."""
    path = f"/models/{name}/predict"
    by_body = await gateway.post(path, json={**body, "stream": True})
    by_header = await gateway.post(path, json=body, headers=EVENTS)
    for response in (by_body, by_header):
        told = events_of(response)
        for key in where:
            told = [each[key] for each in told]
        assert tuple(told) == agent_models.WORDS


async def test_an_agent_that_only_claims_to_stream(gateway: httpx.AsyncClient) -> None:
    """Where the model can't stream, its whole answer is the one event."""
    (event,) = events_of(await gateway.post("/models/whole/predict", json=HELLO, headers=EVENTS))
    assert event["choices"][0]["message"]["content"] == "all at once"


async def test_any_streamable_model_streams(gateway: httpx.AsyncClient, tmp_path: Path) -> None:
    """What a model yields comes in order, NaN as null; without `Accept` it is asked as ever."""
    body = ticks(tmp_path / "log", 3)
    await loaded(gateway, "ticker", body)
    response = await gateway.post("/models/ticker/predict", json=body, headers=EVENTS)
    assert events_of(response) == [{"tick": i, "nan": None} for i in range(3)]
    assert await answered(gateway, "ticker", body) == ["whole"]


async def test_what_goes_wrong_in_a_stream(gateway: httpx.AsyncClient, tmp_path: Path) -> None:
    """Before the first event it is a problem document, after it an event with its message."""
    await loaded(gateway, "ticker", ticks(tmp_path / "log", 0))
    for fails_at, before in ((0, []), (1, [{"tick": 0, "nan": None}])):
        body = ticks(tmp_path / "log", 3, fails_at=fails_at)
        response = await gateway.post("/models/ticker/predict", json=body, headers=EVENTS)
        if not before:
            assert response.status_code == 500
            assert response.json()["code"] == "model_failed"
            continue
        *told, failed = events_of(response)
        assert told == before
        assert failed["error"]["code"] == "model_failed"
        assert failed["error"]["message"]
        assert "secret" not in response.text


async def test_a_stream_of_several_inputs_is_refused(
    gateway: httpx.AsyncClient, tmp_path: Path
) -> None:
    """A stream answers one input."""
    body = [ticks(tmp_path / "log", 1)] * 2
    response = await gateway.post("/models/ticker/predict", json=body, headers=EVENTS)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_input")


async def test_the_deadline_is_between_events(gateway: httpx.AsyncClient, tmp_path: Path) -> None:
    """A stream may take longer than the deadline; one whose next event doesn't come in time ends
    with that."""
    body = ticks(tmp_path / "log", 4, pause_s=0.8)
    await loaded(gateway, "ticker", body)
    response = await gateway.post("/models/ticker/predict", json=body, headers=EVENTS)
    assert len(events_of(response)) == 4
    body = ticks(tmp_path / "log", 2, pause_s=3.0)
    response = await gateway.post("/models/ticker/predict", json=body, headers=EVENTS)
    assert events_of(response)[-1]["error"]["code"] == "deadline_exceeded"


async def test_the_gate_lets_the_next_version_of_an_agent_in(agents_catalog: Catalog) -> None:
    """An agent is no breaking change of itself, and its example fits its contract."""
    version = agents_catalog.model("chat").versions[0]
    assert version.task == "agent/v1/chat"
    assert version.streamable
    assert agents_catalog.differences(agents_catalog.model("chat"), version) == ()
