"""What the demo tells people to try."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from deployments.cli import demo
from deployments.settings import Settings
from gateway.security.api_keys import entry_of, new_secret


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
    commands = [line for line in said if line.startswith("  curl ")]
    assert len(commands) > 3
    assert all(("$MODELMUX_KEY" in command) is has_keys for command in commands)
