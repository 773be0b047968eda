"""Predictions through HAProxy, the ingress, a handle and a replica: shared, large, abandoned."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from tests.support.processes import Gateway
from tests.support.registering import client, columns, register

NUMBER = columns(("x", "double"))
TEXT = columns(("text", "string"))
UNSPEAKABLE = -7.0


@pytest.fixture(scope="module")
def served(mlflow_uri: str, shared_gateway: Gateway) -> Gateway:
    """The gateway with a model that tells how many rows it was called with."""

    class Own(np.ndarray):
        """A class that nobody knows but the model."""

    def company(rows: pd.DataFrame, params: Any) -> Any:
        time.sleep(0.05)  # the model's own slowness: the others gather meanwhile
        if (rows["x"] == UNSPEAKABLE).any():
            return [object()] * len(rows)
        if (rows["x"] < 0).any():
            raise ValueError("negative")
        answer = np.full(len(rows), float(len(rows)))
        return answer.view(Own) if (rows["x"] == 0).any() else list(answer)

    for name, batching in (("sharing", "on"), ("alone", "auto")):
        register(mlflow_uri, name, company, NUMBER, NUMBER)
        client(mlflow_uri).set_registered_model_tag(name, "modelmux.batching", batching)
    register(mlflow_uri, "echo", lambda rows, params: rows, TEXT, TEXT)
    shared_gateway.sync()
    for name in ("sharing", "alone"):
        assert shared_gateway.predict(name, {"x": 1}).status_code == 200
    return shared_gateway


async def at_once(gateway: Gateway, name: str, values: list[float]) -> list[httpx.Response]:
    """One request for each value, all at the same time."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60.0, limits=limits) as caller:
        return await asyncio.gather(
            *(caller.post(f"/models/{name}/predict", json={"x": value}) for value in values)
        )


async def test_concurrent_requests_share_calls_where_the_tag_says_so(served: Gateway) -> None:
    """With batching on the model sees several rows; with a custom model's default just one."""
    sharing = await at_once(served, "sharing", [1.0] * 24)
    assert max(response.json()[0]["x"] for response in sharing) > 1
    alone = await at_once(served, "alone", [1.0] * 8)
    assert [response.json() for response in alone] == [[{"x": 1.0}]] * 8


async def test_callers_by_each_protocol_share_calls(served: Gateway) -> None:
    """In one crowd, and each has the answer in its own form."""
    tensor = {"name": "x", "shape": [1], "datatype": "FP64", "data": [1.0]}
    asked: list[tuple[str, Any]] = [
        ("/models/sharing/predict", {"x": 1.0}),
        ("/models/sharing/invocations", {"dataframe_records": [{"x": 1.0}]}),
        ("/v2/models/sharing/infer", {"inputs": [tensor]}),
    ]
    async with httpx.AsyncClient(base_url=served.url, timeout=60.0) as caller:
        responses = await asyncio.gather(
            *(caller.post(path, json=body) for _ in range(8) for path, body in asked)
        )
    answers = [response.json() for response in responses]
    rows = [
        *(answer[0]["x"] for answer in answers[0::3]),
        *(answer["predictions"][0] for answer in answers[1::3]),
        *(answer["outputs"][0]["data"][0] for answer in answers[2::3]),
    ]
    assert max(rows) > len(rows) / len(asked)


async def test_a_row_that_fails_fails_alone(served: Gateway) -> None:
    """The model raises on one row of a crowd: that caller has a 500, the others their answers."""
    values = [1.0] * 7 + [-1.0] + [2.0] * 7
    responses = await at_once(served, "sharing", values)
    failed = [value for value, each in zip(values, responses, strict=True) if each.is_error]
    assert failed == [-1.0]
    assert next(r for r in responses if r.is_error).json()["code"] == "model_failed"


@pytest.mark.parametrize(("odd", "code"), [(0.0, None), (UNSPEAKABLE, "invalid_model_output")])
async def test_an_odd_answer_is_its_own_caller_s(
    served: Gateway, odd: float, code: str | None
) -> None:
    """In a crowd an array of the model's own class is as good as another, and an answer that JSON
    can't say fails alone, with its own code."""
    values = [1.0] * 7 + [odd] + [2.0] * 7
    responses = await at_once(served, "sharing", values)
    failed = [r.json()["code"] for r in responses if r.is_error]
    assert failed == ([] if code is None else [code])
    assert responses[7].is_error == (code is not None)


async def test_callers_who_leave_disturb_nobody(served: Gateway) -> None:
    """Half of a crowd hangs up while its rows are on their way; the other half is answered."""

    async def leave() -> None:
        async with httpx.AsyncClient(base_url=served.url, timeout=0.02) as caller:
            with pytest.raises(httpx.TimeoutException):
                await caller.post("/models/sharing/predict", json={"x": 1.0})

    *_, responses = await asyncio.gather(
        *(leave() for _ in range(12)), at_once(served, "sharing", [1.0] * 12)
    )
    assert {response.status_code for response in responses} == {200}


def test_a_deadline_in_ray_s_header_is_not_a_caller_s_to_set(served: Gateway) -> None:
    """Ray would answer it with words of its own; the gateway's deadline is the one that counts."""
    header = {"x_request_timeout_seconds": "0.001"}
    assert served.predict("sharing", {"x": 1}, **header).status_code == 200


def test_twenty_megabytes_go_in_and_come_out(served: Gateway) -> None:
    """Neither a body nor an answer of that size meets a limit of gRPC's."""
    rows = [{"text": "x" * 1_000_000} for _ in range(20)]
    answer = served.predict("echo", rows)
    assert answer.status_code == 200, answer.text[:500]
    assert answer.json() == rows


async def test_sleeping_models_may_be_woken_at_once(
    mlflow_uri: str, shared_gateway: Gateway
) -> None:
    """The first requests to several models come together, and each is answered."""
    names = [f"sleeper {number}" for number in range(6)]
    for name in names:
        register(mlflow_uri, name, lambda rows, params: rows, NUMBER, NUMBER)
    shared_gateway.sync()
    async with httpx.AsyncClient(base_url=shared_gateway.url, timeout=90.0) as caller:
        responses = await asyncio.gather(
            *(caller.post(f"/models/{name}/predict", json={"x": 1}) for name in names)
        )
    assert [response.text for response in responses] == ['[{"x":1.0}]'] * len(names)
