"""What is taken as it is: the unit for systemd, and the workflow that builds a release."""

from __future__ import annotations

import re
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.cli.terminal import CANNOT
from deployments.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "systemd" / "modelmux.service"


@pytest.fixture
def service() -> dict[str, str]:
    """The unit's own section."""
    unit = RawConfigParser(strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT, encoding="utf-8")
    return dict(unit["Service"])


def test_the_unit_runs_up_and_gives_up_where_starting_again_cannot_help(
    service: dict[str, str],
) -> None:
    """A bad setting is exit code 2; whatever else ends it is started again."""
    assert service["ExecStart"] == "/opt/modelmux/.venv/bin/modelmux up"
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"] == str(CANNOT)


def test_the_unit_keeps_its_state_where_it_may_write(service: dict[str, str]) -> None:
    """All else of the system is read-only for it; the variables that it sets are settings."""
    variables = dict(each.split("=", 1) for each in service["Environment"].split())
    ours = {name.removeprefix(PREFIX).lower() for name in variables if name.startswith(PREFIX)}
    assert ours <= set(Settings.model_fields)
    state = Path("/var/lib") / service["StateDirectory"]
    assert Path(variables[f"{PREFIX}STATE_DIR"]).is_relative_to(state)
    assert Path(variables["HOME"]).is_relative_to(state)
    assert service["ProtectSystem"] == "strict"


def steps() -> list[dict[str, Any]]:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    (job,) = workflow["jobs"].values()
    found: list[dict[str, Any]] = job["steps"]
    return found


def test_the_workflow_takes_nothing_that_can_be_moved() -> None:
    """Each action is named by the commit that it is; a tag may be another one tomorrow."""
    used = [step["uses"] for step in steps() if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", each) for each in used)


def test_the_workflow_builds_what_has_passed() -> None:
    """CI's own script comes before the wheel, and that before the image."""
    run = [step["run"] for step in steps() if "run" in step]
    places = [
        next(place for place, text in enumerate(run) if word in text)
        for word in (".ci/run", "pip wheel", "docker build")
    ]
    assert places == sorted(set(places))
