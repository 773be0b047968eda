"""`modelmux environments` against a real MLflow server, with packages that are made here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mlflow
import pytest
from click.testing import Result
from mlflow.models import ModelSignature
from typer.testing import CliRunner

from deployments.cli.app import app
from deployments.environments.store import Store
from tests.support.packages import make_wheel
from tests.support.processes import mlflow_server
from tests.support.registering import CallableModel, client, columns
from tests.support.terminals import Terminal

MLFLOW = metadata.version("mlflow-skinny")
SECRET = "hunter22"  # pragma: allowlist secret
LINKED = f"linked @ http://user:{SECRET}@127.0.0.1:9/linked-1.0-py3-none-any.whl"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    for name, version in (("mlflow-skinny", MLFLOW), ("numpy", "2.1.0"), ("pandas", "2.2.0")):
        make_wheel(folder, name, version)
    for version in ("1.0.0", "2.0.0"):
        make_wheel(folder, "zoopkg", version)
    return folder


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`plain` needs what the gateway has; of `zoo` 2 is the champion, 1 is `old`, and 3 has no
    alias; `broken` needs what there isn't, `linked` what is at an address with a password;
    `private` brings its own wheel; `hidden` isn't served."""
    folder = tmp_path_factory.mktemp("mlflow")
    with mlflow_server(folder) as url:
        model = folder / "model"
        mlflow.set_tracking_uri(url)
        mlflow.pyfunc.save_model(
            model,
            python_model=CallableModel(lambda rows, params: rows),
            signature=ModelSignature(columns(("x", "double")), columns(("x", "double"))),
            pip_requirements=["mlflow-skinny"],
        )
        # Without what it says of setuptools, which isn't made here.
        python = "{}.{}.{}".format(*sys.version_info)
        (model / "python_env.yaml").write_text(
            f"python: {python}\ndependencies: ['-r requirements.txt']"
        )
        register(url, model, "plain", [])
        for version in ("1.0.0", "2.0.0", "2.0"):  # the last two are two ways to say the same
            register(url, model, "zoo", [f"zoopkg=={version}"])
        client(url).set_registered_model_alias("zoo", "old", "1")
        client(url).set_registered_model_alias("zoo", "champion", "2")
        register(url, model, "broken", ["zoopkg==3.0.0"])
        register(url, model, "linked", [LINKED])
        make_wheel(model / "code" / "wheels", "private", "1.0")
        register(url, model, "private", ["code/wheels/private-1.0-py3-none-any.whl"])
        register(url, model, "hidden", ["zoopkg==3.0.0"])
        client(url).set_registered_model_tag("hidden", "modelmux.serve", "false")
        yield url


def register(uri: str, model: Path, name: str, lines: Sequence[str]) -> None:
    """The saved model with these requirements, as the next version of that name."""
    (model / "requirements.txt").write_text("\n".join(["mlflow-skinny", *lines]))
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(model), "model")
        source = f"{run.info.artifact_uri}/model"
    registry = client(uri)
    if not registry.search_registered_models(f"name='{name}'"):
        registry.create_registered_model(name)
    registry.create_model_version(name, source, run.info.run_id)


@pytest.fixture
def run(uri: str, index: Path, tmp_path: Path) -> Runner:
    return Runner(uri, index, tmp_path)


class Runner:
    """Runs the command with a state folder of the test's own."""

    def __init__(self, uri: str, index: Path, folder: Path) -> None:
        self.state_dir = folder / "state"
        self._environment = {
            "MODELMUX_TRACKING_URI": uri, "UV_FIND_LINKS": str(index), "UV_OFFLINE": "1",
        }  # fmt: skip

    def __call__(self, command: str, *arguments: str, **variables: str) -> Result:
        """In this process: most of the time of one of its own is that of its imports."""
        with patch.dict(os.environ, {**self._environment, **variables}):
            done = CliRunner().invoke(app, self._arguments(command, *arguments))
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
        assert SECRET not in done.output
        return done

    def shown(self, command: str, *arguments: str) -> str:
        """What a process of its own shows in a terminal."""
        program = str(Path(sys.executable).with_name("modelmux"))
        look = {"TERM": "xterm", "COLUMNS": "200"}
        with Terminal() as terminal:
            done = subprocess.run(
                [program, *self._arguments(command, *arguments)],
                env={**os.environ, **self._environment, **look}, stdout=terminal.line,
                stderr=subprocess.PIPE, text=True, check=False, timeout=300,
            )  # fmt: skip
            assert "Traceback" not in done.stderr, done.stderr
            assert SECRET not in terminal.shown + done.stderr
            return terminal.shown

    def _arguments(self, command: str, *arguments: str) -> list[str]:
        return ["environments", command, *arguments, "--state-dir", str(self.state_dir)]

    def rows(self) -> dict[tuple[str, int], Mapping[str, Any]]:
        """What is listed as JSON, by model and version."""
        listed = json.loads(self("list", "--json").stdout)["environments"]
        return {(row["model"], row["version"]): row for row in listed}


def test_what_is_asked_for_first_is_built_and_the_rest_is_told(run: Runner) -> None:
    """Defaults and aliased versions; the others are missing, and what fails is told as the tools
    said it, without credentials."""
    before = run.rows()
    assert {name for name, _ in before} == {"plain", "zoo", "broken", "linked", "private"}
    plain = before["plain", 1]
    assert (plain["environment"], plain["state"], plain["key"]) == ("gateway", "ready", None)
    states = {key: row["state"] for key, row in before.items() if key != ("plain", 1)}
    assert set(states.values()) == {"missing"}
    assert "zoopkg==1.0.0" in before["zoo", 1]["why"]

    built = run("build")
    assert built.exit_code == 1, built.stderr
    lines = built.stdout.splitlines()
    assert any(line.startswith("zoo version 1: built in ") for line in lines), lines
    assert any(line.startswith("zoo version 2: built in ") for line in lines), lines
    assert any(line.startswith("private version 1: built in ") for line in lines), lines
    assert "plain version 1: the gateway's packages" in lines
    assert any(line.startswith("broken version 1: failed after ") for line in lines), lines
    assert any(line.startswith("  ") and "zoopkg==3.0.0" in line for line in lines), lines

    after = run.rows()
    states = {key: row["state"] for key, row in after.items()}
    assert states == {
        ("plain", 1): "ready", ("zoo", 1): "ready", ("zoo", 2): "ready", ("zoo", 3): "missing",
        ("private", 1): "ready", ("broken", 1): "failed", ("linked", 1): "failed",
    }  # fmt: skip
    assert after["zoo", 1]["size_bytes"] > 1000
    assert after["broken", 1]["lines"]
    assert "127.0.0.1:9/linked" in " ".join(after["linked", 1]["lines"])
    assert "needs linked @ http://***@127.0.0.1:9" in after["linked", 1]["why"]
    plain_text = run("list")
    assert plain_text.exit_code == 1
    cells = [line.split("\t") for line in plain_text.stdout.splitlines()]
    assert ["zoo", "3", "own", "missing", after["zoo", 3]["key"], "-"] in [row[:6] for row in cells]


def test_one_version_or_all_of_a_model_are_built_and_pruned(run: Runner) -> None:
    """What is there isn't built again; pruning to nothing leaves nothing."""
    one = run("build", "zoo:3")
    assert (one.exit_code, one.stdout.split(" built in")[0]) == (0, "zoo version 3:"), one.stderr
    every = run("build", "zoo", "--all")
    assert every.exit_code == 0
    told = dict(line.split(": ", 1) for line in every.stdout.splitlines())
    assert told["zoo version 3"] == "ready, it was there"
    assert told["zoo version 1"].startswith("built in")
    assert run("build", "zoo:old").stdout == "zoo version 1: ready, it was there\n"
    kept = run("prune")
    assert kept.stdout.startswith("0 environments removed; "), kept.stdout
    pruned = run("prune", "--max-bytes", "0")
    assert pruned.exit_code == 0, pruned.stderr
    assert pruned.stdout.count(": removed, ") == 3
    assert {row["state"] for row in run.rows().values()} == {"missing", "ready"}
    assert not any(path.name[0] != "." for path in (run.state_dir / "environments").iterdir())


def test_what_was_built_elsewhere_is_there_once_the_folder_is(run: Runner, tmp_path: Path) -> None:
    """As docs/10 has it for machines without internet: an archive of the folder, at its path."""
    assert run("build", "zoo:3").exit_code == 0
    archive = str(tmp_path / "environments.tar")
    tar = ("tar", "-C", str(run.state_dir))
    subprocess.run([*tar, "-cf", archive, "environments"], check=True)
    shutil.rmtree(run.state_dir)
    run.state_dir.mkdir()
    subprocess.run([*tar, "-xf", archive], check=True)
    done = run("build", "zoo:3", UV_FIND_LINKS="")
    assert done.stdout == "zoo version 3: ready, it was there\n", done.stderr
    (environment,) = Store(run.state_dir / "environments").all()
    code = "import zoopkg; print(zoopkg.version)"
    said = subprocess.run([environment.interpreter, "-c", code], capture_output=True, check=True)
    assert said.stdout == b"2.0.0\n"


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (("absent",), {}, "no model that is called absent"),
        (("zoo:9",), {}, "no version 9"),
        (("zoo:nobody",), {}, "no version nobody"),
        ((), {"MODELMUX_TRACKING_URI": "http://127.0.0.1:9"}, "127.0.0.1:9"),
    ],
)
def test_what_cant_be_done_is_exit_code_2(
    run: Runner, arguments: tuple[str, ...], variables: dict[str, str], words: str
) -> None:
    """In one line, and nothing is built."""
    done = run("build", *arguments, **variables)
    assert (done.exit_code, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
    assert words in done.stderr
    assert not list(run.state_dir.glob("environments/*"))


def test_a_version_whose_files_cant_be_read_is_told(
    run: Runner, uri: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The others are built all the same."""
    registry = client(uri)
    model = tmp_path_factory.mktemp("half")
    location = registry.get_model_version_download_uri("plain", "1")
    mlflow.artifacts.download_artifacts(location, dst_path=str(model))
    folder = next(path.parent for path in model.rglob("MLmodel"))
    (folder / "python_env.yaml").write_text("[")
    register(uri, folder, "half", [])
    try:
        done = run("build", "half")
        assert done.exit_code == 1
        assert done.stdout.startswith("half version 1: failed: "), done.stdout
        assert "python_env.yaml" in done.stdout
        assert run.rows()["half", 1]["state"] == "failed"
    finally:
        registry.delete_registered_model("half")
        shutil.rmtree(model)


def test_a_terminal_shows_what_is_being_built(run: Runner) -> None:
    """And then a line of each, and a table."""
    shown = run.shown("build", "zoo")
    assert "Building zoo version 2, 0 s … 2 to go" in shown
    assert "zoo version 2: built in" in shown
    shown = run.shown("list")
    assert "Packages" in shown
    assert "7 versions · 4 missing" in shown
