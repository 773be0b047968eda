"""A gateway over fakes that serves odd models, its document in a file, and where generators live:
environments of their own, made once a session."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.generators.odd_models import odd_catalog
from tests.support.page_catalog import staged

PROGRAMS = Path(__file__).parent / "programs"
_INSTALLING_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A gateway that answers, and the document that it gave; `file` has that."""

    url: str
    document: dict[str, Any]
    file: Path

    @property
    def operations(self) -> set[str]:
        """The ids of all predictions."""
        return {
            path["post"]["operationId"]
            for route, path in self.document["paths"].items()
            if route.endswith("/predict")
        }

    @property
    def components(self) -> set[str]:
        """The words for all models."""
        return {operation.removeprefix("predict_") for operation in self.operations}


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    file = tmp_path_factory.mktemp("document") / "openapi.json"
    with staged(odd_catalog()) as stage:
        content = httpx.get(f"{stage.url}/openapi.json", timeout=60).content
        file.write_bytes(content)
        yield Served(url=stage.url, document=orjson.loads(content), file=file)


Environment = Callable[..., Path]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Makes an environment of Python with these packages; gives the folder of its programs."""

    def made(*packages: str) -> Path:
        folder = tmp_path_factory.mktemp("environment") / "venv"
        uv = str(Path(sys.executable).with_name("uv"))
        run(uv, "venv", "--quiet", "--python", sys.executable, str(folder))
        python = str(folder / "bin" / "python")
        run(uv, "pip", "install", "--quiet", "--python", python, *packages, timeout=_INSTALLING_S)
        return folder / "bin"

    return made


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the generators and linters of npm."""
    if shutil.which("npm") is None:
        pytest.skip("npm isn't here")
    folder = tmp_path_factory.mktemp("node")
    shutil.copy(PROGRAMS / "package.json", folder)
    run("npm", "install", "--no-audit", "--no-fund", cwd=folder, timeout=_INSTALLING_S)
    return folder


def run(*command: str, timeout: int = 120, **how: Any) -> str:
    """What a program said; its failure is the test's, with all of that."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, **how)
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"{' '.join(command)}\n{said[-8000:]}"
    return said
