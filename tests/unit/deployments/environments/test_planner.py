"""What settings say of environments reaches those who build them."""

from __future__ import annotations

from pathlib import Path

from deployments.environments.builder import BuildSettings
from deployments.environments.interpreters import Interpreter
from deployments.environments.model_needs import Minor
from deployments.environments.planner import EnvironmentSettings, Planner, environment_settings
from deployments.environments.satisfaction import GATEWAY_PYTHON
from deployments.settings import Settings


def test_each_setting_of_environments_counts(tmp_path: Path) -> None:
    """None keeps its default where another value is set."""
    settings = Settings(
        tracking_uri="http://127.0.0.1:9",
        state_dir=tmp_path,
        environment="own",
        environment_builds_at_once=3,
        environment_build_timeout_s=60.0,
        max_environment_bytes=1000,
        environment_wheels_only=True,
        environment_python_downloads=True,
    )
    assert environment_settings(settings) == EnvironmentSettings(
        folder=str(tmp_path / "environments"),
        mode="own",
        builds=BuildSettings(most_at_once=3, timeout_s=60.0, max_bytes=1000, wheels_only=True),
        may_download_pythons=True,
    )


async def test_a_python_that_is_too_old_is_as_one_that_isnt_here(tmp_path: Path) -> None:
    """What a version gets doesn't depend on whether that Python is on the machine."""
    planner = Planner(EnvironmentSettings(folder=str(tmp_path)))

    async def found(minor: Minor) -> Interpreter:
        return Interpreter(path="/usr/bin/python", version=(*minor, 1))

    planner.builder.interpreters.find = found  # type: ignore[method-assign]
    files = {"python_env.yaml": b"python: 3.7.16\ndependencies: [zoopkg]"}
    choice = await planner.plan(files.get, fingerprint="f", tag=None)
    assert choice.needs is not None
    assert choice.needs.python_minor == GATEWAY_PYTHON
    assert choice.warning is not None
    assert "3.7, which is older than 3.8" in choice.warning
    strict = await planner.plan(files.get, fingerprint="f", tag="own")
    assert strict.needs is not None
    assert strict.needs.python_minor == (3, 7)
