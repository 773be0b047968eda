"""What settings say of environments reaches those who build them."""

from __future__ import annotations

from pathlib import Path

from deployments.environments.builder import BuildSettings
from deployments.environments.planner import EnvironmentSettings, environment_settings
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
