"""MLflow servers of other releases, each in an environment of its own that uv makes.

Environments are kept outside of the repository, in `OLD_MLFLOW_FOLDER` or the user's cache, so that
a release is installed once.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from uv import find_uv_bin

from tests.support.processes import free_port, running, wait_for_http
from tests.support.pythons import python_of

_PYTHON = "3.10"
_INSTALL_TIMEOUT_S = 900.0
# What old releases need, and don't say.
_OLD = ("setuptools<70", "numpy<2", "pandas<2.2")
_OLD_BEFORE = (2, 14)
_MLFLOW = ("mlflow", "mlflow-skinny", "mlflow-tracing")


def _folder() -> Path:
    named = os.environ.get("OLD_MLFLOW_FOLDER")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else cache / "modelmux-tests" / "mlflow"


def python_with(release: str) -> Path:
    """The interpreter of an environment with that release of MLflow; skips the test where this
    machine has no Python for it, or the package index no such release that can be installed."""
    base = python_of(_PYTHON)
    if base is None:
        pytest.skip(f"there is no Python {_PYTHON} here")
    folder = _folder() / release
    interpreter = folder / "bin" / "python"
    done = folder / "installed"
    if not done.exists():
        subprocess.run([find_uv_bin(), "venv", "--clear", "--python", base, folder], check=True)
        try:
            _install(str(interpreter), release)
        except subprocess.CalledProcessError as failed:
            said = str(failed.stderr).strip().splitlines()
            pytest.skip(f"can't be installed here: {said[-1] if said else failed}")
        done.touch()
    return interpreter


def _install(interpreter: str, release: str) -> None:
    is_old = tuple(map(int, release.split(".")[:2])) < _OLD_BEFORE
    wanted = f"mlflow=={release}"
    try:
        _pip("install", "--python", interpreter, wanted, *(_OLD if is_old else ()))
    except subprocess.CalledProcessError:
        # An index may have a release before the mlflow-skinny that it asks for. All code is in
        # mlflow itself: what it needs is taken from the newest release that is whole.
        _pip("install", "--python", interpreter, f"mlflow<{release}")
        _pip("uninstall", "--python", interpreter, *_MLFLOW)
        _pip("install", "--python", interpreter, "--no-deps", wanted)


def _pip(*arguments: str) -> None:
    subprocess.run(
        [find_uv_bin(), "pip", *arguments],
        capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, check=True,
    )  # fmt: skip


@contextmanager
def server_of(interpreter: Path, folder: Path) -> Iterator[str]:
    """A tracking server that this interpreter's MLflow runs, on SQLite in `folder`; its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        str(interpreter.with_name("mlflow")), "server", "--serve-artifacts",
        "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination", str(folder / "artifacts"),
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    # Its workers are started by the name of their program.
    path = f"{interpreter.parent}{os.pathsep}{os.environ['PATH']}"
    lean = {"PATH": path, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with running(command, log=folder / "mlflow.log", environment=lean) as process:
        try:
            wait_for_http(f"{url}/health", process, folder / "mlflow.log")
            yield url
        finally:  # old releases leave their workers
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
