"""The distribution: what a user gets from the wheel alone."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.support.processes import free_port, poll, running, wait_for_http
from tests.support.registering import columns, register, register_fitted

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _pip(Path(sys.executable), "wheel", "--no-deps", "-w", str(folder), str(ROOT))
    (built,) = folder.glob("modelmux-*.whl")
    return built


def _pip(python: Path, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "-q", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


def test_the_wheel_holds_all_that_is_needed(wheel: Path) -> None:
    """Packages, the docs page's assets and the demo are in it; tests are not."""
    names = set(zipfile.ZipFile(wheel).namelist())
    for needed in (
        "gateway/http/assets/swagger-ui-bundle.js",
        "gateway/http/assets/catalog/page.js",
        "gateway/http/assets/catalog/inter.woff2",
        "gateway/http/pages/templates/model.html",
        "gateway/contract/contract.py",
        "registry_sync/source.py",
        "deployments/cli/app.py",
        "deployments/examples/registration.py",
    ):
        assert needed in names
    assert not any(name.startswith(("tests/", "docs/", "benchmarks/")) for name in names)


def test_the_wheel_serves_from_an_empty_environment(
    wheel: Path, mlflow_uri: str, tmp_path: Path
) -> None:
    """Installed with its own dependencies only (no full MLflow), the command serves a model, and,
    once its packages are there, one of scikit-learn, which isn't installed."""
    name, fitted = "for the wheel", "fitted for the wheel"
    number = columns(("x", "double"))
    register(mlflow_uri, name, lambda rows, params: rows, number, number)
    register_fitted(mlflow_uri, fitted)
    environment = tmp_path / "venv"
    _install(wheel, environment, tmp_path)
    port = free_port()
    command = [
        str(environment / "bin" / "modelmux"), "up", "--tracking-uri", mlflow_uri,
        "--port", str(port), "--state-dir", str(tmp_path / "state"), "--include", "*for the wheel",
    ]  # fmt: skip
    log = tmp_path / "gateway.log"
    with running(command, log=log, cwd=tmp_path) as process:
        url = f"http://127.0.0.1:{port}"
        wait_for_http(f"{url}/readyz", process, log)
        assert _predicted(environment, name, url) == [{"x": 1.0}]
        poll(lambda: _is_built(url, fitted), timeout_s=300, what="its own packages")
        assert _predicted(environment, fitted, url) == [{"y": pytest.approx(2.0)}]


def _install(wheel: Path, environment: Path, folder: Path) -> None:
    """The wheel with its dependencies in an environment of its own, by uv, which takes a tenth of
    pip's time; torch is the one that pip takes, for the processor where the tests' own is."""
    torch = f"torch=={metadata.version('torch').partition('+')[0]}"
    _pip(Path(sys.executable), "download", "--no-deps", "-d", str(folder / "torch"), torch)
    uv = [sys.executable, "-m", "uv", "--quiet"]
    subprocess.run([*uv, "venv", "--python", sys.executable, str(environment)], check=True)
    into = ["--python", str(environment / "bin" / "python")]
    given = ["-c", str(ROOT / "constraints.txt"), "--find-links", str(folder / "torch")]
    subprocess.run([*uv, "pip", "install", *into, *given, str(wheel)], check=True)


def _is_built(url: str, name: str) -> bool:
    """Whether the packages of the model's default version are there; asked by a plain request: the
    command takes a second of processor time."""
    told = httpx.get(f"{url}/models/{quote(name)}").json()["environment"]
    assert told is None or told["state"] != "failed", told
    return told is not None and (told["kind"], told["state"]) == ("own", "ready")


def _predicted(environment: Path, name: str, url: str) -> Any:
    """What the model answers, by the command."""
    asked = subprocess.run(
        [str(environment / "bin" / "modelmux"), "predict", name, '{"x": 1}', "--url", url],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    return json.loads(asked.stdout)
