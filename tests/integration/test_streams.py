"""Streams through everything there is: a model's process, Ray's replicas, HAProxy."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.support.agent_models import WORDS, register_agents
from tests.support.processes import Gateway, poll

EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module")
def streaming(
    mlflow_uri: str, shared_gateway: Gateway, tmp_path_factory: pytest.TempPathFactory
) -> Gateway:
    """The session's gateway with models that stream."""
    register_agents(mlflow_uri, tmp_path_factory.mktemp("streams"), ("chat", "responses"))
    shared_gateway.sync()
    return shared_gateway


def ticks(log: Path, count: int, pause_s: float) -> dict[str, Any]:
    return {"log": str(log), "count": count, "pause_s": pause_s, "fails_at": -1}


def load(running: Gateway, log: Path) -> None:
    """The model's deadline is short: have it loaded before."""
    poll(
        lambda: running.predict("ticker", ticks(log, 0, 0.0)).status_code == 200,
        timeout_s=240,
        what="the model being loaded",
    )


def test_events_come_when_the_model_yields_them(streaming: Gateway, tmp_path: Path) -> None:
    """Whether by handle, which is the first stream's way, or by the process's socket: each event
    is there long before the next one."""
    log = tmp_path / "log"
    load(streaming, log)
    for _ in range(2):
        came: list[float] = []
        with streaming.client.stream(
            "POST", "/models/ticker/predict", json=ticks(log, 4, 0.6), headers=EVENTS
        ) as response:
            assert response.headers["X-Model-Version"] == "1"
            lines = [line for line in _timed(response, came) if line.startswith("data: ")]
        assert [json.loads(line[6:])["tick"] for line in lines[:-1]] == [0, 1, 2, 3]
        assert lines[-1] == "data: [DONE]"
        gaps = [after - before for before, after in pairwise(came[:4])]
        assert min(gaps) > 0.3, came


def _timed(response: httpx.Response, came: list[float]) -> Iterator[str]:
    for line in response.iter_lines():
        if line:
            came.append(time.monotonic())
        yield line


def test_a_caller_who_leaves_ends_the_generator(streaming: Gateway, tmp_path: Path) -> None:
    """The model's generator is closed, and so its slot is free for others."""
    log = tmp_path / "log"
    load(streaming, tmp_path / "other")
    with streaming.client.stream(
        "POST", "/models/ticker/predict", json=ticks(log, 10_000, 0.1), headers=EVENTS
    ) as response:
        next(response.iter_lines())
    poll(lambda: "closed" in log.read_text().split(), what="the generator being closed")
    assert streaming.predict("ticker", ticks(log, 0, 0.0)).json() == ["whole"]


def test_openais_client_streams(streaming: Gateway) -> None:
    """The official client works with the gateway's address alone."""
    client = openai.OpenAI(base_url=f"{streaming.url}/v1", api_key="none", max_retries=5)
    assert "responses" in [model.id for model in client.models.list()]
    with client.responses.stream(model="responses", input="Hi") as stream:
        assert stream.get_final_response().output_text == "".join(WORDS)
    chunks = client.chat.completions.create(
        model="chat", messages=[{"role": "user", "content": "Hi"}], stream=True
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "".join(WORDS)
