"""MLflow's scoring protocol below each model, side by side with MLflow's own server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.protos.databricks_pb2 import ErrorCode
from mlflow.pyfunc import scoring_server
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from starlette.testclient import TestClient

from gateway.errors import all_errors
from gateway.http.problems import problem_document
from gateway.metrics.counters import Traffic
from gateway.metrics.families import REQUESTS
from tests.support.pyfunc_gateway import gateway_of, listening
from tests.support.scoring_models import ANSWERS, save_all

FOUR = pd.DataFrame(np.arange(20, dtype="float64").reshape(5, 4), columns=list("abcd"))
TYPES = pd.DataFrame(
    {
        "whole": [1, 2],
        "flag": [True, False],
        "zone": ["a", 'b,"c'],
        "at": pd.to_datetime(["2024-01-02T03:04:05", "2024-02-03T00:00:00"]).as_unit("ns"),
        "may": [1.5, None],
    }
)
JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"


def split(frame: pd.DataFrame) -> dict[str, Any]:
    return {"dataframe_split": json.loads(frame.to_json(orient="split", date_format="iso"))}


def records(frame: pd.DataFrame) -> dict[str, Any]:
    return {"dataframe_records": json.loads(frame.to_json(orient="records", date_format="iso"))}


def parquet(frame: pd.DataFrame) -> bytes:
    sink = BytesIO()
    frame.to_parquet(sink)
    return sink.getvalue()


class Servers:
    """MLflow's server of each model, and the gateway of all."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self.traffic = Traffic()
        self.app = gateway_of(folders, traffic=self.traffic)
        self.gateway = TestClient(self.app)
        self.folders = folders
        self._own: dict[str, TestClient] = {}

    def own(self, name: str) -> TestClient:
        if name not in self._own:
            model = mlflow.pyfunc.load_model(str(self.folders[name]))
            self._own[name] = TestClient(scoring_server.init(model))
        return self._own[name]

    def both(self, name: str, body: Any, media_type: str = JSON) -> tuple[Any, Any]:
        """What MLflow answers, and what the gateway does."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": media_type}
        own = self.own(name).post("/invocations", content=content, headers=headers)
        ours = self.gateway.post(f"/models/{name}/invocations", content=content, headers=headers)
        return own, ours


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    # MLflow's server says so in the environment, for ever.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IS_IN_MLFLOW_SERVING_ENVIRONMENT", "false")
        yield Servers(save_all(tmp_path_factory.mktemp("models")))


@pytest.mark.parametrize(
    ("name", "body", "media_type"),
    [
        ("table", split(FOUR), JSON),
        (
            "table",
            {"dataframe_split": {**split(FOUR)["dataframe_split"], "index": list("vwxyz")}},
            JSON,
        ),
        ("table", records(FOUR), JSON),
        ("table", records(FOUR.assign(more=1)), JSON),
        ("table", {"dataframe_split": split(FOUR[list("dcba")])["dataframe_split"]}, JSON),
        ("table", b'{"dataframe_records": [{"a": NaN, "b": 1, "c": 2, "d": 3}]}', JSON),
        ("table", {"inputs": FOUR.to_dict("list")}, JSON),
        ("table", {"inputs": {"a": 1, "b": 2.5, "c": 3, "d": 4}}, JSON),
        ("table", {"inputs": FOUR.to_dict("records")}, JSON),
        ("table", {"instances": FOUR.to_dict("records")}, JSON),
        ("table", {"instances": FOUR.to_dict("list"), "surplus": 1}, JSON),
        ("table", b"\xef\xbb\xbf" + json.dumps(records(FOUR)).encode(), JSON),
        ("table", {"inputs": {"a": [1, 2], "b": 2.5, "c": 3, "d": 4}}, JSON),
        ("table", {"dataframe_split": {"columns": list("abcd"), "data": FOUR.to_dict("records")}},
         JSON),
        ("table", FOUR.to_csv(index=False).encode(), CSV),
        ("table", FOUR.to_csv().encode(), CSV),
        ("table", parquet(FOUR), PARQUET),
        ("table", parquet(FOUR.set_index("a", drop=False)), PARQUET),
        ("frame", records(FOUR), JSON),
        ("frame", split(FOUR), f"{JSON}; charset=utf-8"),
        ("types", split(TYPES), JSON),
        ("types", records(TYPES), JSON),
        ("types", parquet(TYPES), PARQUET),
        ("tensor", {"inputs": [[1, 2, 3], [4, 5, 6.5]]}, JSON),
        ("tensor", {"inputs": [[0.1, None, 3]]}, JSON),
        ("tensor", b'{"inputs": [[0.1, NaN, 3]]}', JSON),
        ("tensor", {"instances": [[1, 2, 3], [4, 5, 6.5]]}, JSON),
        ("tensor", {"dataframe_split": {"data": [[1.0, 2, 3]]}}, JSON),
        ("tensors", {"inputs": {"x": [[1, 2]], "y": [[3, 4.5]]}}, JSON),
        ("tensors", {"instances": [{"x": [1, 2], "y": [3, 4]}, {"x": [1, 2], "y": [3, 4]}]}, JSON),
        ("texts", {"inputs": ["a", "b"]}, JSON),
        ("texts", {"inputs": "a"}, JSON),
        ("texts", {"inputs": ["a"], "params": {"mark": "!"}}, JSON),
        ("texts", {"inputs": ["a"], "params": {"mark": "!", "unknown": 1}}, JSON),
        ("texts", {"prompt": "a"}, JSON),
        ("texts", {"input": "a", "mark": "!"}, JSON),
        ("texts", {"dataframe_split": {"columns": [0], "data": [["a"], ["b"]]}}, JSON),
        ("prompt", {"prompt": "hello"}, JSON),
        ("prompt", {"inputs": ["hello", "you"]}, JSON),
        ("prompt", {"inputs": {"prompt": ["hello", "you"]}}, JSON),
        ("nested", {"inputs": {"points": [1, 2.5], "place": {"city": "Ulm"}}}, JSON),
        ("nested", {"inputs": [{"points": [1, 2.5], "place": {"city": "Ulm"}}]}, JSON),
        ("nested", {"dataframe_records": [{"points": [1.5], "place": {"city": "Ulm"}}]}, JSON),
        ("hinted", {"inputs": ["a", "b"]}, JSON),
        *((f"answer-{name}", split(rows), JSON) for name in ANSWERS for rows in (FOUR, FOUR[:1])),
    ],
)  # fmt: skip
def test_the_same_request_has_the_same_answer(
    servers: Servers, name: str, body: Any, media_type: str
) -> None:
    """Status and JSON are those of MLflow's own server, null where it writes NaN."""
    own, ours = servers.both(name, body, media_type)
    assert own.status_code == 200, own.text
    assert ours.status_code == 200, ours.text
    nan_is_null = json.loads(own.text, parse_constant=lambda _: None)
    assert ours.json() == nan_is_null
    assert ours.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("name", "body", "media_type", "status"),
    [
        ("table", b"[1, 2]", JSON, 400),
        ("table", b'{"dataframe_records": [', JSON, 400),
        ("table", {"dataframe_records": [], "inputs": []}, JSON, 400),
        ("table", {"other": []}, JSON, 400),
        ("table", {"dataframe_records": {"a": 1}}, JSON, 400),
        ("table", {"dataframe_split": {"columns": ["a"], "rows": []}}, JSON, 400),
        ("table", {"dataframe_records": [{"a": 1}]}, JSON, 400),
        ("table", {"dataframe_records": [{"a": "x", "b": 1, "c": 1, "d": 1}]}, JSON, 400),
        ("table", b"no parquet", PARQUET, 400),
        ("table", b"a,b\n1,2,3\n", CSV, 400),
        ("broken", records(FOUR), JSON, 400),
        ("hinted", {"instances": ["a"]}, JSON, 400),
        ("table", b"<a/>", "text/xml", 415),
        ("table", b"{}", f"{JSON}; charset=latin-1", 415),
    ],
)
def test_what_mlflow_refuses_is_refused_alike(
    servers: Servers, name: str, body: Any, media_type: str, status: int
) -> None:
    """The status is MLflow's, and the problem document has what its clients read."""
    own, ours = servers.both(name, body, media_type)
    assert (own.status_code, ours.status_code) == (status, status), ours.text
    problem = ours.json()
    assert problem["status"] == status
    assert problem["error_code"] == "BAD_REQUEST"
    assert problem["message"]
    assert "stack_trace" not in problem


def test_what_is_wrong_has_a_pointer(servers: Servers) -> None:
    """Pointers are into the form that came."""
    rows = {"columns": ["a", "b", "c", "d"], "data": [[1, 2, 3, 4], [1, 2, "x", 4]]}
    for body, pointer in (
        ({"dataframe_split": rows}, "/dataframe_split/data/1/2"),
        ({"dataframe_records": [{"a": "x", "b": 1, "c": 1, "d": 1}]}, "/dataframe_records/0/a"),
        ({"inputs": {"a": [1], "b": [1], "c": ["x"], "d": [1]}}, "/inputs/c/0"),
    ):
        response = servers.gateway.post("/models/table/invocations", json=body)
        assert [each["pointer"] for each in response.json()["errors"]] == [pointer]
        assert pointer in response.json()["message"]


def test_where_json_ends_is_told(servers: Servers) -> None:
    """The line and the column, as on the typed route."""
    for path in ("/models/table/invocations", "/models/table/predict", "/v2/models/table/infer"):
        body = b'\xef\xbb\xbf{"inputs":\n [}'
        headers = {"Content-Type": JSON}
        refused = servers.gateway.post(path, content=body, headers=headers).json()
        assert refused["code"] == "malformed_json"
        assert refused["detail"].endswith("at line 2, column 3."), path


def test_a_bare_body_that_does_not_fit_is_pointed_at_as_a_whole(servers: Servers) -> None:
    """The only input that has no name is the body itself, of a language model's request."""
    body = {"messages": [{"role": "user", "content": "a"}]}
    for name, pointer in (("hinted", ""), ("texts", "/messages")):
        refused = servers.gateway.post(f"/models/{name}/invocations", json=body)
        assert refused.status_code == 400
        assert [each["pointer"] for each in refused.json()["errors"]] == [pointer]


def test_mlflow_s_client_works_with_a_model_s_path(servers: Servers) -> None:
    """`ScoringServerClient` pings, asks for the version and predicts, of a version too."""
    with listening(servers.app) as port:
        for path in ("models/table", "models/table/versions/1", "models/table/versions/champion"):
            client = ScoringServerClient("127.0.0.1", port)
            client.url_prefix = f"http://127.0.0.1:{port}/{path}"
            client.wait_server_ready(timeout=10)
            assert client.get_version() == mlflow.__version__
            found = client.invoke(FOUR).get_predictions()
            assert found[0].tolist() == FOUR.sum(axis=1).tolist()


@pytest.mark.parametrize("path", ["ping", "health", "version"])
def test_only_what_can_be_asked_is_healthy(servers: Servers, path: str) -> None:
    """200 for a model and a version that there are, 404 else, by GET and HEAD."""
    own = servers.own("table").get(f"/{path}")
    for method in ("GET", "HEAD"):
        ours = servers.gateway.request(method, f"/models/table/{path}")
        assert ours.status_code == own.status_code == 200
    assert servers.gateway.get(f"/models/table/{path}").text == own.text
    assert servers.gateway.get(f"/models/none/{path}").status_code == 404
    assert servers.gateway.get(f"/models/table/versions/7/{path}").status_code == 404


def test_the_metrics_tell_protocols_apart(servers: Servers) -> None:
    """Predictions are counted by the protocol that they came in."""
    before = dict(servers.traffic.reading()[REQUESTS.name])
    servers.gateway.post("/models/table/invocations", json=records(FOUR))
    servers.gateway.post("/models/table/predict", json=FOUR.to_dict("records"))
    servers.gateway.post("/models/table/invocations", json={})
    after = dict(servers.traffic.reading()[REQUESTS.name])
    more = {labels: count - before.get(labels, 0) for labels, count in after.items()}
    assert more[("table", "1", "200", "mlflow")] == 1
    assert more[("table", "1", "200", "modelmux")] == 1
    assert more[("table", "1", "400", "mlflow")] == 1


def test_two_versions_at_once_are_refused(servers: Servers) -> None:
    """A path and a header that name different versions are no guess."""
    response = servers.gateway.post(
        "/models/table/versions/1/invocations",
        json=records(FOUR),
        headers={"X-Model-Version": "champion"},
    )
    assert (response.status_code, response.json()["code"]) == (400, "conflicting_version")


def test_every_error_has_a_name_of_mlflow_s() -> None:
    """What MLflow's clients look up in their own list is in it."""
    for error in all_errors():
        made = error.__new__(error)
        made.detail, made.model, made.version, made.retry_after_s = "d", None, None, None
        made.violations = made.differences = ()  # type: ignore[attr-defined]
        made.requested_version = made.default_version = 1  # type: ignore[attr-defined]
        document = problem_document(made, instance="/", request_id="r")
        assert document["error_code"] in dict(ErrorCode.items())


async def test_a_body_of_too_many_rows_is_refused(servers: Servers) -> None:
    """413, whichever form it has."""
    app = gateway_of({"table": servers.folders["table"]}, max_rows=3)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gw") as client:
        for content, media_type in (
            (json.dumps(records(FOUR)).encode(), JSON),
            (json.dumps(split(FOUR)).encode(), JSON),
            (FOUR.to_csv(index=False).encode(), CSV),
            (parquet(FOUR), PARQUET),
        ):
            response = await client.post(
                "/models/table/invocations", content=content, headers={"Content-Type": media_type}
            )
            assert (response.status_code, response.json()["code"]) == (413, "payload_too_large")
