"""Environments of flavors, each built once by uv, as those of a gateway's models are."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

from deployments.environments.builder import Builder, BuildFailed, BuildSettings
from deployments.environments.model_needs import Needs, read_needs
from deployments.environments.store import Store
from tests.flavors.language_model import language_model
from tests.flavors.recipes import Flavor

FOLDER = Path(__file__).parents[2] / ".flavors"


def _needs(flavor: Flavor) -> Needs:
    mlflow = metadata.version("mlflow")
    files = {
        "python_env.yaml": "python: {}.{}.0\ndependencies: ['-r requirements.txt']".format(
            *sys.version_info
        ),
        "requirements.txt": "\n".join((f"mlflow=={mlflow}", *flavor.requirements)),
    }
    found = read_needs(
        lambda path: files[path].encode() if path in files else None,
        gateway_python=sys.version_info[:2],
        source="",
    )
    assert isinstance(found, Needs), found
    return found


@pytest.fixture
async def interpreter_of() -> Callable[[Flavor], Awaitable[str]]:
    """The interpreter of a flavor's environment. Where its packages can't be had the test is
    skipped, and says what the resolver said."""
    builder = Builder(
        Store(FOLDER),
        settings=BuildSettings(),
        gateway_mlflow=metadata.version("mlflow-skinny"),
        environment=os.environ,
    )

    async def interpreter(flavor: Flavor) -> str:
        if flavor.near and all(importlib.util.find_spec(each) for each in flavor.near):
            return sys.executable
        try:
            return (await builder.build(_needs(flavor), again=True)).interpreter
        except BuildFailed as failed:
            pytest.skip(f"{failed.reason} {' '.join(failed.lines[-2:])}")

    return interpreter


@pytest.fixture(autouse=True)
def openai(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What OpenAI's clients ask in all processes of a test."""
    with language_model() as url:
        monkeypatch.setenv("OPENAI_API_KEY", "none")  # pragma: allowlist secret
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        monkeypatch.setenv("OPENAI_API_BASE", url)
        yield
