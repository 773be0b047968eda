"""Ingress replicas come when many predictions are inside, and go again."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pandas as pd

from tests.processes import Gateway, gateway, poll
from tests.registering import columns, register

NUMBER = columns(("x", "double"))
NAME = "asked by many"


def _slow(rows: pd.DataFrame, params: Any) -> pd.DataFrame:
    time.sleep(0.2)
    return rows


async def test_replicas_come_with_the_requests_and_each_is_counted(
    mlflow_uri: str, tmp_path: Path
) -> None:
    """Ray doesn't see predictions; told of them, it makes a second replica, whose numbers
    `/metrics` has as well, and no caller sees any of that."""
    register(mlflow_uri, NAME, _slow, NUMBER, NUMBER)
    environment = {
        "MODELMUX_INGRESS_MAX_REPLICAS": "2",
        "MODELMUX_INGRESS_TARGET_REQUESTS": "4",
    }
    with gateway(mlflow_uri, tmp_path, "--include", NAME, environment=environment) as running:
        assert running.predict(NAME, {"x": 1}).status_code == 200
        assert _replicas(running) == 1
        statuses: set[int] = set()
        async with (
            httpx.AsyncClient(base_url=running.url, timeout=60.0) as caller,
            asyncio.TaskGroup() as group,
        ):
            asking = [group.create_task(_ask_on(caller, statuses)) for _ in range(16)]
            await asyncio.to_thread(
                poll, lambda: _replicas(running) == 2, timeout_s=60, what="a second replica"
            )
            for each in asking:
                each.cancel()
        assert statuses == {200}


async def _ask_on(caller: httpx.AsyncClient, statuses: set[int]) -> None:
    while True:
        answer = await caller.post(f"/models/{NAME}/predict", json={"x": 1})
        statuses.add(answer.status_code)


def _replicas(running: Gateway) -> int:
    told = running.client.get("/metrics").text
    (line,) = [line for line in told.splitlines() if line.startswith("modelmux_ingress_replicas ")]
    return round(float(line.split()[1]))
