"""MLflow's deployments plugin against a gateway on a port."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from mlflow.deployments import get_deploy_client
from mlflow.deployments.cli import commands
from mlflow.deployments.interface import plugin_store
from mlflow.exceptions import MlflowException

from deployments import deploy_client
from tests.support.pyfunc_gateway import gateway_of, listening
from tests.support.scoring_models import save_all

PROJECT = Path(__file__).parents[3] / "pyproject.toml"
FOUR = pd.DataFrame(np.arange(20.0).reshape(5, 4), columns=list("abcd"), index=list("vwxyz"))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    # As installing does, also where what is installed is older.
    entry_points = tomllib.loads(PROJECT.read_text())["project"]["entry-points"]
    plugin_store.register("modelmux", entry_points["mlflow.deployments"]["modelmux"])
    folders = save_all(tmp_path_factory.mktemp("models"))
    with listening(gateway_of(folders)) as port:
        yield f"modelmux:http://127.0.0.1:{port}"


@pytest.fixture(params=[True, False], ids=["by Arrow", "without PyArrow"])
def client(target: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    if not request.param:
        monkeypatch.setattr("deployments.deploy_client.find_spec", lambda _: None)
    return get_deploy_client(target)


@pytest.mark.parametrize("name", ["table", "table/1", "table@champion", "table/latest"])
def test_a_frame_is_answered_by_a_frame(client: Any, name: str) -> None:
    """With the index that it has, of the version that the name says."""
    answer = client.predict(name, FOUR)
    pd.testing.assert_frame_equal(answer, FOUR.sum(axis=1).to_frame("prediction"))
    assert client.predict(endpoint=name, inputs=FOUR).equals(answer)


def test_columns_keep_their_types(client: Any) -> None:
    """Whole numbers, booleans, texts and moments come back as such."""
    frame = pd.DataFrame(
        {
            "whole": [1, 2**53 + 1],
            "flag": [True, False],
            "zone": ["a", "b"],
            "at": pd.to_datetime(["2024-01-02T03:04:05", "2024-02-03T00:00:00"]),
            "may": [1.5, np.nan],
        }
    )
    answer = client.predict("types", frame)
    assert answer["whole"].tolist() == [2, 2**54 + 2]
    assert answer["flag"].tolist() == [False, True]
    assert answer["had"].tolist() == [True, False]
    assert answer["zone"].tolist() == ["a!", "b!"]
    assert pd.to_datetime(answer["at"]).tolist() == frame["at"].tolist()


def test_lists_and_objects_travel_too(client: Any) -> None:
    """A column of lists, and one of dicts."""
    frame = pd.DataFrame({"points": [[1.0, 2.5], [3.0]], "place": [{"city": "Ulm"}] * 2})
    answer = client.predict("nested", frame)
    assert answer["prediction"].tolist() == ["3.5 Ulm", "3.0 Ulm"]


def test_what_isn_t_a_frame_goes_as_mlflow_s_scoring_does(client: Any) -> None:
    """Arrays, and bodies of MLflow's as they are."""
    answer = client.predict("tensor", np.ones((2, 3)))
    assert answer.get_predictions("ndarray").tolist() == [[2.0] * 3] * 2
    answer = client.predict("texts", {"inputs": ["a"], "params": {"mark": "!"}})
    assert answer["predictions"] == ["a!"]
    answer = client.predict("tensors", {"x": np.ones((1, 2)), "y": np.ones((1, 2))})
    assert answer["predictions"] == {"sum": [[2.0, 2.0]]}


def test_models_are_listed_and_described(client: Any) -> None:
    """As deployments and as endpoints."""
    names = [each["name"] for each in client.list_endpoints()]
    assert "table" in names
    assert client.list_deployments() == client.list_endpoints()
    assert client.get_endpoint("table")["name"] == "table"
    assert client.get_deployment("table@champion") == client.get_endpoint("table")


def test_what_the_gateway_refuses_is_mlflow_s_exception(client: Any) -> None:
    """With the gateway's words and the places, and its name of the error."""
    with pytest.raises(MlflowException, match=r"/[a-z]+/") as wrong:
        client.predict("table", FOUR.assign(b="x"))
    assert wrong.value.error_code == "INVALID_PARAMETER_VALUE"
    with pytest.raises(MlflowException) as missing:
        client.predict("none", FOUR)
    assert missing.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    with pytest.raises(MlflowException, match="register"):
        client.create_deployment("table", "models:/table/1")


@pytest.mark.parametrize(
    "cells",
    [
        [2**70],
        [1 + 2j],
        pd.period_range("2024", periods=1, freq="D"),
        pd.Series(["\ud800"], dtype=object),
    ],
)
def test_what_has_no_form_is_said_before_it_is_sent(client: Any, cells: Any) -> None:
    """Whichever way a DataFrame goes, and never as a number that it isn't."""
    with pytest.raises(MlflowException, match="no form in JSON"):
        client.predict("table", pd.DataFrame({"a": cells}))


def test_of_two_columns_of_a_name_none_is_meant(client: Any) -> None:
    """By Arrow and as JSON columns; decimals are numbers in both."""
    with pytest.raises(MlflowException, match="same name"):
        client.predict("table", pd.concat([FOUR, FOUR], axis=1))
    as_decimals = FOUR.map(lambda each: Decimal(str(each)))
    expected = client.predict("table", FOUR)
    pd.testing.assert_frame_equal(client.predict("table", as_decimals), expected)


@pytest.mark.parametrize("inputs", [pd.Series([1.0]), {1}, {"a": len}, b"x"])
def test_what_mlflow_s_json_has_not_is_mlflow_s_exception(client: Any, inputs: Any) -> None:
    """Not the encoder's own."""
    with pytest.raises(MlflowException, match="no form in JSON"):
        client.predict("table", inputs)


@pytest.mark.parametrize("name", ["table@ü", "table@a\nb"])
def test_a_version_that_no_header_takes_is_refused(client: Any, name: str) -> None:
    """Before it is sent."""
    with pytest.raises(MlflowException, match="A version is"):
        client.predict(name, FOUR)


def test_where_nothing_listens_it_is_said() -> None:
    """Also by MLflow's own exception."""
    with pytest.raises(MlflowException, match="No answer from"):
        get_deploy_client("modelmux:http://127.0.0.1:9").list_endpoints()


def test_the_key_is_that_of_the_environment(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`MODELMUX_KEY` is sent with each request."""
    monkeypatch.setenv("MODELMUX_KEY", "secret")
    client = get_deploy_client(target)
    assert client._client.headers["authorization"] == "Bearer secret"


def test_the_command_predicts(target: str, tmp_path: Path) -> None:
    """`mlflow deployments predict -t modelmux:… --name … -I …`, and `list`, `help`."""
    asked = tmp_path / "asked.json"
    FOUR.reset_index(drop=True).to_json(asked)
    run = CliRunner().invoke(
        commands, ["predict", "-t", target, "--name", "table", "-I", str(asked)]
    )
    assert run.exit_code == 0, run.output
    told = json.loads(run.output)
    assert list(told["prediction"].values()) == FOUR.sum(axis=1).tolist()
    run = CliRunner().invoke(commands, ["list", "-t", target])
    assert "table" in run.output
    run = CliRunner().invoke(commands, ["help", "-t", "modelmux"])
    assert "MODELMUX_KEY" in run.output


@pytest.mark.parametrize(
    ("name", "path", "selector"),
    [
        ("a", "/models/a", None),
        ("a/3", "/models/a", "3"),
        ("a@champion", "/models/a", "champion"),
        ("a@b/latest", "/models/a%40b", "latest"),
        ("a@b@champion", "/models/a%40b", "champion"),
        ("@", "/models/%40", None),
        ("a@", "/models/a%40", None),
    ],
)
def test_a_name_with_an_at_can_be_asked_for(name: str, path: str, selector: str | None) -> None:
    """What comes last is the version."""
    headers = {} if selector is None else {"X-Model-Version": selector}
    assert deploy_client._asked(name) == (path, headers)
