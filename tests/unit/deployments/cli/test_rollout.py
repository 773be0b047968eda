"""`modelmux promote` and what a gateway knows of the version as a shadow."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import typer

from deployments.cli import client, rollout
from deployments.cli.terminal import NO

ASK = {"url": "http://gw:8000", "key": None}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the gateway tells of the shadow of `m`, as the test has it."""
    shadow: dict[str, Any] = {
        "shadow_version": 3,
        "default_version": 2,
        "agreement": 0.97,
        "requests": {"compared": 1000, "failed": 1, "late": 2, "dropped": 40},
    }

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/models/m/shadow"
        return httpx.Response(200, json=shadow)

    def connected(url: str, key: str | None) -> httpx.Client:
        return httpx.Client(base_url=url, transport=httpx.MockTransport(answer))

    monkeypatch.setattr(client, "gateway_client", connected)
    return shadow


def test_it_says_how_often_the_shadow_agreed(
    told: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """With what wasn't compared, and without a bar whatever it is passes."""
    rollout._look_at_shadow("m", 3, at_least=None, **ASK)
    said = " ".join(capsys.readouterr().out.split())
    assert "97.00% of 1000 requests as version 2 did (1 failed, 2 late, 40 dropped)" in said


@pytest.mark.parametrize(("at_least", "exit_code"), [(0.95, None), (0.97, None), (0.98, NO)])
def test_one_that_agrees_too_seldom_is_not_promoted(
    told: dict[str, Any], at_least: float, exit_code: int | None
) -> None:
    """The exit code tells a job, as that of a version that breaks the contract does."""
    if exit_code is None:
        rollout._look_at_shadow("m", 3, at_least=at_least, **ASK)
        return
    with pytest.raises(typer.Exit) as refused:
        rollout._look_at_shadow("m", 3, at_least=at_least, **ASK)
    assert refused.value.exit_code == exit_code


@pytest.mark.parametrize("fact", [{"agreement": None}, {"shadow_version": 4}])
def test_what_was_never_compared_passes_no_bar(told: dict[str, Any], fact: dict[str, Any]) -> None:
    """Another version's figures, or none, say nothing about this one: that can't be told."""
    told.update(fact)
    rollout._look_at_shadow("m", 3, at_least=None, **ASK)
    with pytest.raises(typer.Exit) as refused:
        rollout._look_at_shadow("m", 3, at_least=0.5, **ASK)
    assert refused.value.exit_code not in (0, NO)
