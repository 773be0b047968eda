"""What a run of the gateway logs: a line per request, and nothing that is secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest

from tests.support.processes import Gateway, end, gateway, poll
from tests.support.raw_requests import answers_to, request
from tests.support.registering import columns, register
from tests.support.up_output import not_ours, not_ours_in_json

TEXT = columns(("text", "string"))
SECRET = "m4rk3d-s3cr3t"  # pragma: allowlist secret - what is looked for in the logs


def _repeat_and_fail(rows: pd.DataFrame, params: object) -> pd.DataFrame:
    text = rows["text"].iloc[0]
    raise ValueError(f"can't read {text}\n2026-01-01 00:00:00,000 INFO forged: {text}")


@pytest.fixture(scope="module")
def logged_models(mlflow_uri: str) -> str:
    """A model that answers, one that repeats what it was sent as it fails, and one that never loads
    for want of something with a secret address."""
    register(mlflow_uri, "logged well", lambda rows, params: rows, TEXT, TEXT)
    register(mlflow_uri, "logged tells", _repeat_and_fail, TEXT, TEXT)
    register(mlflow_uri, "logged never", _fail_to_load, TEXT, TEXT, on_load=_fail_to_load)
    return mlflow_uri


@pytest.fixture(scope="module", params=["text", "json"])
def logging_gateway(
    request: pytest.FixtureRequest, logged_models: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Gateway]]:
    """A gateway that logs in that format, whose registry's address has a password."""
    folder = tmp_path_factory.mktemp(request.param)
    with_password = logged_models.replace("://", f"://user:{SECRET}@")
    options = ("--log-format", request.param, "--include", "logged *")
    with gateway(with_password, folder, *options) as running:
        yield request.param, running


def _fail_to_load(*_: Any) -> Any:
    raise RuntimeError(f"no answer from https://key:{SECRET}@bucket/artifact?signature={SECRET}")


def access_lines(form: str, running: Gateway) -> list[dict[str, str]]:
    """The fields of all access lines so far, as text."""
    found = []
    for line in running.log.read_text(errors="replace").splitlines():
        if "gateway.access" not in line:
            continue
        if form == "json":
            found.append({name: str(value) for name, value in json.loads(line).items()})
        else:
            said = line.partition("gateway.access: ")[2]
            found.append(dict(pair.split("=", 1) for pair in said.split(" ")))
    return found


def test_every_request_has_a_line_and_none_tells_a_secret(
    logging_gateway: tuple[str, Gateway],
) -> None:
    """Predictions that go well, that are refused, that fail in the model and in its loading, each
    with marked values wherever a caller or an address may have them: each has its line, and the
    marks are nowhere in the output; in JSON every line is an object, in text none is forged."""
    form, running = logging_gateway
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
        "id": client.get("/healthz", headers={"X-Request-ID": f"{SECRET} {SECRET}"}),
    }  # fmt: skip
    answers_to(running.url, request(b"X-Model-Version: " + SECRET.encode() + b"\xff"))
    by_id = poll(
        lambda: (
            found
            if (found := {line["request_id"]: line for line in access_lines(form, running)}).keys()
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
    assert by_id["too"]["model"] == ("logged well" if form == "json" else "logged%20well")
    assert by_id["fails"]["version"] == "1"
    output = running.log.read_text(errors="replace")
    assert SECRET not in output
    assert "can't be loaded: RuntimeError: no answer from https://bucket/artifact?…" in output
    assert "ValueError" in output, "the model's stack is told"
    assert "_repeat_and_fail" in output
    assert not [line for line in output.splitlines() if line.startswith("2026-01-01")]
    if form == "json":
        lines = [json.loads(line) for line in output.splitlines()]
        assert {"modelmux.supervisor", "deployments.cli.app", "gateway.access"} <= {
            line["logger"] for line in lines
        }


def test_no_line_is_lost_at_the_end(logging_gateway: tuple[str, Gateway]) -> None:
    """A request that was answered a moment before SIGTERM has its line when the process is gone,
    and in all its life it has written no line that isn't ours."""
    form, running = logging_gateway
    ids = [f"last-{number}" for number in range(100)]
    for each in ids:
        assert running.client.get("/healthz", headers={"X-Request-ID": each}).status_code == 200
    assert end(running.process) == 0
    logged = {line["request_id"] for line in access_lines(form, running)}
    assert set(ids) <= logged
    lines_of_others = not_ours_in_json if form == "json" else not_ours
    assert lines_of_others(running.log.read_text(errors="replace")) == []
