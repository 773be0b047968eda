"""`modelmux promote` and `rollback`: what a gateway tells, and when the alias is moved."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import typer
from typer.testing import CliRunner

from deployments.cli import client, registry, rollout
from deployments.cli.app import app
from deployments.cli.terminal import CANNOT, NO
from gateway.catalog import FormerDefault, HeldVersion
from gateway.http.views import describe_model
from registry_sync import aliases
from tests.support.catalogs import BREAKING, catalog, served, version

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


class World:
    """A gateway that answers what the test has it know, and a registry that moves an alias."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.catalog = catalog(served(version(1)))
        self.moved: list[tuple[str, str, int]] = []
        self.looks = 0
        self.status = 200

        def connected(url: str, key: str | None) -> httpx.Client:
            return httpx.Client(base_url=url, transport=httpx.MockTransport(self._answer))

        def moves(name: str, alias: str, number: int, **_: Any) -> None:
            self.moved.append((name, alias, number))

        monkeypatch.setattr(client, "gateway_client", connected)
        monkeypatch.setattr(registry, "gateway_client", connected)
        monkeypatch.setattr(aliases, "move_alias", moves)
        monkeypatch.setattr(rollout, "_accepts_breaking", lambda *_: False)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            self.looks += 1
            return httpx.Response(403)
        if self.status != 200:
            told = {"status": self.status, "code": "model_not_found", "detail": "No such model."}
            return httpx.Response(self.status, json=told)
        if request.url.path.endswith("/shadow"):
            return httpx.Response(
                200, json={"requests": {}, "agreement": None, "shadow_version": 1}
            )
        return httpx.Response(200, json=describe_model(self.catalog, "m").model_dump(mode="json"))

    def run(self, *arguments: str) -> int:
        """The exit code."""
        asked = ["--url", "http://gw:8000", "--tracking-uri", "sqlite:///none.db"]
        done = CliRunner().invoke(app, [*arguments, *asked])
        assert not isinstance(done.exception, Exception) or done.exit_code, done.exception
        self.said = " ".join(done.output.split())
        return done.exit_code


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def _default(number: int, *former: int, **more: Any) -> Any:
    """Versions 1 to 3, of which 3 breaks, with that default and those before it."""
    versions = (version(1), version(2), version(3, BREAKING))
    before = tuple(FormerDefault(number=n, fingerprint=versions[n - 1].fingerprint) for n in former)
    return catalog(served(*versions, default=number, former_defaults=before, **more))


@pytest.mark.parametrize(
    ("arguments", "code", "moved"),
    [
        (("promote", "m", "2"), 0, 2),
        (("promote", "m", "challenger"), 0, 2),
        (("promote", "m", "2", "--dry-run"), 0, None),
        (("promote", "m", "3"), NO, None),
        (("promote", "m", "2", "--agreement", "0.9"), CANNOT, None),
        (("rollback", "m"), NO, None),
    ],
)
def test_the_alias_is_moved_where_the_gate_lets_it(
    world: World, arguments: tuple[str, ...], code: int, moved: int | None
) -> None:
    """The exit code tells a job what was done, and nothing is written where the answer is no, or
    where it was only asked."""
    world.catalog = _default(1, aliases={"champion": 1, "challenger": 2})
    assert world.run(*arguments) == code, world.said
    assert world.moved == ([] if moved is None else [("m", "champion", moved)])


def test_rollback_goes_to_the_default_before(world: World) -> None:
    """Whatever breaks by that; the gateway looks at the registry before and after, which may be
    refused. A dry run says the same."""
    world.catalog = _default(3, 1, 2, aliases={"champion": 3})
    assert world.run("rollback", "m", "--dry-run") == 0
    assert world.moved == []
    assert world.run("rollback", "m") == 0
    assert world.moved == [("m", "champion", 2)]
    assert world.looks == 3


@pytest.mark.parametrize("why", ["It is being loaded before it takes over.", "It would break."])
def test_rollback_of_what_has_not_taken_over_stays_at_the_default(world: World, why: str) -> None:
    """The alias was moved a moment ago, or is held: going to the default before would take two
    steps back."""
    held = HeldVersion(number=3, reason=why)
    world.catalog = _default(2, 1, aliases={"champion": 3}, held=held)
    assert world.run("rollback", "m") == 0
    assert world.moved == [("m", "champion", 2)]


@pytest.mark.parametrize("held", [None, HeldVersion(number=1, reason="It is being loaded.")])
def test_rollback_of_what_never_had_a_default_says_so(
    world: World, held: HeldVersion | None
) -> None:
    """Nothing is moved, nothing is said to stay, and no version is called None."""
    nothing = {"default_version": None, "contract": None, "held": held}
    of_one = served(version(1), aliases={"champion": 1})
    world.catalog = catalog(of_one.model_copy(update=nothing))
    assert world.run("rollback", "m") == NO
    assert world.moved == []
    assert "None" not in world.said
    assert "no default" in world.said


def test_what_was_the_default_before_is_promoted_by_a_rollback(world: World) -> None:
    """It breaks what is in force now: refused, with the command that goes back to it."""
    world.catalog = _default(3, 2)
    assert world.run("promote", "m", "2") == NO
    assert "modelmux rollback m goes back to it" in world.said


def test_the_first_version_of_a_model_is_promoted(world: World) -> None:
    """Where the alias alone makes a default, nothing was promised that it could break."""
    nothing = {"default_version": None, "contract": None}
    world.catalog = catalog(served(version(1), version(2, BREAKING)).model_copy(update=nothing))
    assert world.run("promote", "m", "2") == 0
    assert world.moved == [("m", "champion", 2)]


@pytest.mark.parametrize("command", [("rollback", "m"), ("promote", "m", "2")])
def test_a_gateway_that_refuses_cannot_tell(world: World, command: tuple[str, ...]) -> None:
    """That there is no such model, or no right to ask, is no answer to the question."""
    world.status = 404
    assert world.run(*command) == CANNOT
    assert world.moved == []
