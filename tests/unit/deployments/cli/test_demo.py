"""What the demo tells people of its models, and to try."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.cli import demo
from deployments.settings import Settings
from examples.registration import DEMO_MODELS, OTHER_IDNA
from gateway.security.api_keys import entry_of, new_secret

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize("has_keys", [True, False])
def test_the_tour_has_a_key_where_keys_are_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, has_keys: bool
) -> None:
    """Every command can be pasted as it is, with a key in a variable where one is needed."""
    monkeypatch.setattr(httpx, "get", lambda *_, **__: httpx.Response(200, json={"models": []}))
    keys = entry_of("shop", new_secret(), ["read", "predict"]) if has_keys else None
    said: list[str] = []
    settings = Settings(tracking_uri="http://127.0.0.1:9", state_dir=tmp_path, keys=keys)
    demo._say_tour(settings, said.append)
    assert said[0] == f"Ready: the demo is at {settings.url}"
    commands = [line for line in said if line.startswith("  curl ")]
    assert len(commands) > 3
    assert all(("$MODELMUX_KEY" in command) is has_keys for command in commands)


def _listed(**environment: Any) -> dict[str, Any]:
    """A model as `/models` lists it, as far as the tour looks at it."""
    why = "its own: needs idna==3.7, the gateway has 3.20"
    told = {"kind": "own", "state": "ready", "why": why, "reason": None, "lines": []}
    return {
        "name": "domain_name",
        "versions": [1],
        "default_version": 1,
        "environment": {**told, **environment},
    }


def _tour(monkeypatch: pytest.MonkeyPatch, folder: Path, model: dict[str, Any]) -> str:
    response = httpx.Response(200, json={"models": [model]})
    monkeypatch.setattr(httpx, "get", lambda *_, **__: response)
    said: list[str] = []
    demo._say_tour(Settings(tracking_uri="http://127.0.0.1:9", state_dir=folder), said.append)
    return "\n".join(said)


def test_the_tour_tells_which_model_has_packages_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Why, as the gateway says it; nothing of one that runs with the gateway's."""
    assert "needs idna==3.7, the gateway has 3.20" in _tour(monkeypatch, tmp_path, _listed())
    shared = _listed(kind="gateway", why="the gateway's, which has all that it needs")
    assert "the gateway's" not in _tour(monkeypatch, tmp_path, shared)
    unknown = {**_listed(), "environment": None}
    assert "Packages:" not in _tour(monkeypatch, tmp_path, unknown)


@pytest.mark.parametrize("state", ["missing", "waiting", "building"])
def test_the_tour_tells_that_packages_are_being_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str
) -> None:
    """Whoever asks at once gets 503 for some seconds, and not by a fault."""
    assert "some seconds" in _tour(monkeypatch, tmp_path, _listed(state=state))
    assert "some seconds" not in _tour(monkeypatch, tmp_path, _listed())


def test_the_tour_tells_that_packages_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without an index the demo runs all the same, and says which model doesn't and why."""
    reason = "Its environment can't be built: Its packages can't be installed."
    failed = _listed(state="failed", reason=reason, lines=["error: the index isn't reached"])
    said = _tour(monkeypatch, tmp_path, failed)
    assert reason in said
    assert "the index isn't reached" in said
    assert "some seconds" not in said


def test_the_demo_needs_another_release_than_the_gateway_has() -> None:
    """What its model pins is neither what is installed here nor what the image is built with."""
    name, _, version = OTHER_IDNA.partition("==")
    assert metadata.version(name) != version
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    (pinned,) = [line for line in constraints if line.startswith(f"{name}==")]
    assert pinned != OTHER_IDNA


def test_the_tour_asks_every_model_of_the_demo() -> None:
    """None is registered that nobody is shown."""
    assert {path.split("/")[2] for path, _, _ in demo._TOUR} == set(DEMO_MODELS)
