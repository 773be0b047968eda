"""What a run of the gateway logs: a line per request, and nothing that is secret; and that it
serves the models that it was told to.

Lines are JSON here; how the text form escapes and leaves out is in the unit tests of `logs`.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from tests.support.agent_models import register_ticker
from tests.support.processes import Gateway, gateway, poll
from tests.support.raw_requests import answers_to, request
from tests.support.registering import columns, register
from tests.support.up_output import not_ours_in_json

TEXT = columns(("text", "string"))
SERVED = ["logged never", "logged tells", "logged ticker", "logged token", "logged well"]
SECRET = "m4rk3d-s3cr3t"  # pragma: allowlist secret - what is looked for in the logs


def _repeat_and_fail(rows: pd.DataFrame, params: object) -> pd.DataFrame:
    text = rows["text"].iloc[0]
    raise ValueError(f"can't read {text}\n2026-01-01 00:00:00,000 INFO forged: {text}")


@pytest.fixture(scope="module")
def logged_models(mlflow_uri: str) -> str:
    """A model that answers, one that repeats what it was sent as it fails, and one that never loads
    for want of something with a secret address, one that tells what it finds in its environment,
    one that streams, and one that is left out."""
    register_ticker(mlflow_uri, "logged ticker")
    register(mlflow_uri, "logged well", lambda rows, params: rows, TEXT, TEXT)
    register(mlflow_uri, "logged tells", _repeat_and_fail, TEXT, TEXT)
    register(mlflow_uri, "logged never", _fail_to_load, TEXT, TEXT, on_load=_fail_to_load)
    register(mlflow_uri, "logged token", _tell_token, TEXT, TEXT)
    register(mlflow_uri, "logged elsewhere", lambda rows, params: rows, TEXT, TEXT)
    return mlflow_uri


@pytest.fixture(scope="module")
def logging_gateway(
    logged_models: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway that logs in JSON and serves some of the models; its registry's address has a
    password, and its environment a variable of MLflow's."""
    folder = tmp_path_factory.mktemp("logging")
    with_password = logged_models.replace("://", f"://user:{SECRET}@")
    options = ("--log-format", "json", "--include", "logged *", "--exclude", "* elsewhere")
    environment = {
        "MLFLOW_TRACKING_TOKEN": "reaches the replica",
        "MODELMUX_DEPLOYMENT": "shared",
    }
    with gateway(with_password, folder, *options, environment=environment) as running:
        yield running


def _tell_token(rows: pd.DataFrame, params: object) -> pd.DataFrame:
    return pd.DataFrame({"text": [os.environ.get("MLFLOW_TRACKING_TOKEN", "")] * len(rows)})


def _fail_to_load(*_: Any) -> Any:
    raise RuntimeError(f"no answer from https://key:{SECRET}@bucket/artifact?signature={SECRET}")


def access_lines(running: Gateway) -> list[dict[str, str]]:
    """The fields of all access lines so far, as text."""
    return [
        {name: str(value) for name, value in json.loads(line).items()}
        for line in running.log.read_text(errors="replace").splitlines()
        if "gateway.access" in line
    ]


def test_include_and_exclude_pick_the_models(
    logging_gateway: Gateway, shared_gateway: Gateway
) -> None:
    """Only names that an include pattern admits and no exclude pattern refuses are there, MLflow's
    own variables reach the model, and no other gateway on the machine ever answers instead."""
    shared_gateway.sync()
    token = logging_gateway.predict("logged token", {"text": ""})
    assert token.json() == [{"text": "reaches the replica"}]
    for _ in range(20):
        assert _names(logging_gateway) == SERVED
        assert {*SERVED, "logged elsewhere"} <= set(_names(shared_gateway))


def _names(running: Gateway) -> list[str]:
    # Each by a connection of its own, which anybody who listens there might take.
    listing = httpx.get(f"{running.url}/models", timeout=30).json()
    return [model["name"] for model in listing["models"]]


def test_every_request_has_a_line_and_none_tells_a_secret(
    logging_gateway: Gateway,
) -> None:
    """Predictions that go well, that are refused, that fail in the model and in its loading, each
    with marked values wherever a caller or an address may have them: each has its line, and the
    marks are nowhere in the output, whose every line is an object."""
    running = logging_gateway
    headers = {"Authorization": f"Bearer {SECRET}", "Cookie": SECRET, "X-Api-Key": SECRET}
    client = running.client
    body = {"text": SECRET}
    asked = {
        "well": client.post("/models/logged%20well/predict", json=body,
                            headers={**headers, "X-Request-ID": "well"}),
        "too": client.post("/models/logged%20well/predict", json=[body, body],
                           headers={**headers, "X-Request-ID": "too"}),
        "refused": client.post("/models/logged%20well/predict", json={SECRET: SECRET},
                               headers={**headers, "X-Request-ID": "refused"}),
        "fails": client.post("/models/logged%20tells/predict", json=body,
                             headers={**headers, "X-Request-ID": "fails"}),
        "unloadable": client.post("/models/logged%20never/predict", json=body,
                                  headers={**headers, "X-Request-ID": "unloadable"}),
        "query": client.get(f"/models?key={SECRET}",
                            headers={**headers, "X-Request-ID": "query"}),
        "forging": client.get("/a%0a2026-01-01%20INFO%20forged:%20x%20status=200",
                              headers={"X-Request-ID": "forging"}),
        "id": client.get("/docs", headers={"X-Request-ID": f"{SECRET} {SECRET}"}),
    }  # fmt: skip
    answers_to(running.url, request(b"X-Model-Version: " + SECRET.encode() + b"\xff"))
    by_id = poll(
        lambda: (
            found
            if (found := {line["request_id"]: line for line in access_lines(running)}).keys()
            >= {*asked.keys() - {"id"}, asked["id"].headers["x-request-id"]}
            else None
        ),
        what="the access lines",
    )
    by_id["id"] = by_id[asked["id"].headers["x-request-id"]]
    for name, response in asked.items():
        line = by_id[name]
        assert line["status"] == str(response.status_code), name
        assert line["path"] == response.request.url.raw_path.decode().partition("?")[0]
        assert line["method"] == response.request.method
        assert float(line["ms"]) > 0
    assert (by_id["well"]["rows"], by_id["too"]["rows"]) == ("1", "2")
    assert by_id["too"]["model"] == "logged well"
    assert by_id["fails"]["version"] == "1"
    output = running.log.read_text(errors="replace")
    assert SECRET not in output
    assert "can't be loaded: RuntimeError: no answer from https://bucket/artifact?…" in output
    assert "ValueError" in output, "the model's stack is told"
    assert "_repeat_and_fail" in output
    assert not [line for line in output.splitlines() if line.startswith("2026-01-01")]
    lines = [json.loads(line) for line in output.splitlines()]
    assert {"modelmux.supervisor", "deployments.cli.app", "gateway.access"} <= {
        line["logger"] for line in lines
    }


def test_a_gateway_that_ends_drops_nothing(logging_gateway: Gateway, tmp_path: Path) -> None:
    """SIGTERM lets a stream that has begun come to its end; a request that was answered a moment
    before has its line when the process is gone, and in all its life it has written no line that
    isn't ours."""
    running = logging_gateway
    path = "/models/logged%20ticker/predict"
    body = {"log": str(tmp_path / "log"), "count": 0, "pause_s": 0.4, "fails_at": -1}
    poll(lambda: running.client.post(path, json=body).status_code == 200, what="a loaded model")
    body["count"] = 8
    events = {"Accept": "text/event-stream"}
    ids = [f"last-{number}" for number in range(100)]
    with running.client.stream("POST", path, json=body, headers=events) as response:
        lines = response.iter_lines()
        next(lines)
        for each in ids:
            assert running.client.get("/docs", headers={"X-Request-ID": each}).status_code == 200
        running.process.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line.startswith("data: ")]
    assert rest[-1] == "data: [DONE]"
    assert len(rest) == body["count"]
    assert running.process.wait(60) == 0
    logged = {line["request_id"] for line in access_lines(running)}
    assert set(ids) <= logged
    assert not_ours_in_json(running.log.read_text(errors="replace")) == []
