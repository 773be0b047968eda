"""`modelmux check` against a real registry: the command of a CI job."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from deployments.cli.app import app
from tests.support.registering import client, columns, register

NAME = "it's checked"


@pytest.fixture(scope="module")
def registry(empty_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a registry in a file."""
    copy = shutil.copy(empty_registry, tmp_path_factory.mktemp("check"))
    return f"sqlite:///{copy}"


@pytest.fixture(scope="module")
def uri(registry: str) -> str:
    """Version 1, a compatible 2, a breaking 3 and an unsigned 4."""

    def predict(rows: object, params: object) -> object:
        return rows

    y = columns(("y", "double"))
    register(registry, NAME, predict, columns(("x", "double")), y)
    register(registry, NAME, predict, columns(("x", "double"), ("z", "string", False)), y)
    register(registry, NAME, predict, columns(("length [cm]", "double")), y)
    register(registry, NAME, predict, None)
    client(registry).set_registered_model_alias(NAME, "champion", "1")
    return registry


def _check(
    uri: str, *arguments: str, environment: str = "auto"
) -> subprocess.CompletedProcess[str]:
    command = str(Path(sys.executable).with_name("modelmux"))
    return subprocess.run(
        [command, "check", *arguments, "--tracking-uri", uri],
        capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "MODELMUX_ENVIRONMENT": environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((NAME, "2"), 0, "keeps the contract of version 1"),
        ((NAME, "3"), 1, "/length [cm]"),
        ((NAME, "3", "--against", "2"), 1, "/length [cm]"),
        ((NAME, "1", "--against", "champion"), 0, "keeps"),
        ((NAME, "4"), 2, "signature"),
        ((NAME, "9"), 2, "9"),
        ((NAME, "1", "--against", "nobody"), 2, "nobody"),
        (("no such model", "1"), 2, "no such model"),
    ],
)
def test_the_exit_code_is_the_answer(
    uri: str, arguments: tuple[str, ...], code: int, words: str
) -> None:
    """0 keeps the contract, 1 breaks it, 2 can't tell; each with its reason."""
    done = CliRunner().invoke(app, ["check", *arguments, "--tracking-uri", uri])
    assert done.exit_code == code, done.output
    assert words in done.output


@pytest.mark.parametrize(
    ("arguments", "code", "moved"),
    [
        ((NAME, "2", "--dry-run"), 0, 1),
        ((NAME, "1"), 0, 1),
        ((NAME, "3"), 1, 1),
        ((NAME, "9"), 2, 1),
        ((NAME, "2"), 0, 2),
        (("first", "1"), 0, 1),
    ],
)
def test_promote_moves_the_alias_where_nothing_breaks(
    uri: str, arguments: tuple[str, ...], code: int, moved: int
) -> None:
    """By the registry alone, too: what has the alias already, and the first version of a model,
    break nothing."""
    registry = client(uri)
    if arguments[0] == "first" and not registry.search_registered_models("name = 'first'"):
        first = registry.get_model_version(NAME, "1")
        registry.create_registered_model("first")
        registry.create_model_version(
            "first", source=first.source, run_id=first.run_id, model_id=first.model_id
        )
    done = CliRunner().invoke(app, ["promote", *arguments, "--tracking-uri", uri])
    assert done.exit_code == code, done.output
    named = registry.get_model_version_by_alias(arguments[0], "champion")
    assert int(named.version) == moved
    registry.set_registered_model_alias(NAME, "champion", "1")


def test_json_lists_the_differences(uri: str) -> None:
    """`--json` is for machines."""
    result = json.loads(_check(uri, NAME, "3", "--json").stdout)
    assert (result["compatible"], result["candidate"], result["against"]) == (False, 3, 1)
    assert {d["pointer"] for d in result["differences"]} == {"/x", "/length [cm]"} or (
        "/length [cm]" in {d["pointer"] for d in result["differences"]}
    )


def test_a_registry_that_is_away_cannot_tell() -> None:
    """Exit code 2 within seconds, in one line."""
    done = _check("http://127.0.0.1:9", NAME, "1")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_behaviour_is_compared_by_asking_both(registry: str, tmp_path: Path) -> None:
    """Both versions are asked in processes of their own; the exit code is by `--at-most`."""

    def doubles(rows: pd.DataFrame, params: object) -> pd.DataFrame:
        return pd.DataFrame({"y": rows["x"] * 2.0})

    def differs(rows: pd.DataFrame, params: object) -> pd.DataFrame:
        return pd.DataFrame({"y": rows["x"] * 2.0 + (rows["x"] > 2) * 0.5})

    for predict in (doubles, differs):
        register(
            registry, "answers otherwise", predict, columns(("x", "double")),
            columns(("y", "double")),
        )  # fmt: skip
    file = tmp_path / "rows.jsonl"
    file.write_text('{"x": 1}\n{"x": 2}\n{"x": 3}\n{"x": 4}\n')
    arguments = ("answers otherwise", "2", "--behaviour", "--on", str(file), "--json")
    done = _check(registry, *arguments, "--at-most", "0.5", environment="shared")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)["behaviour"]
    assert (seen["compared"], seen["different"], seen["columns"][0]["max"]) == (4, 2, 0.5)
