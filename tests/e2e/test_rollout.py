"""Rolling a version out as the README tells it: shadow, canary, promote, roll back, history,
capture, and a job that compares behaviour. Real MLflow, real Ray, real processes, a real browser.

One story: each act begins where the one before it ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, expect
from typer.testing import CliRunner

from deployments.cli.app import app
from tests.support.processes import Gateway, poll
from tests.support.registering import Predict, client, columns, register
from tests.support.steady_load import Ask, steady_load

NAME = "roll-out"
X, Y = columns(("x", "double")), columns(("y", "double"))

_PATIENCE_S = 180.0
_PAGE_PATIENCE_MS = 60_000


def _doubles(*, differs: bool) -> Predict:
    """Twice x; the better version says half more of what ends in 7, and fails below zero."""

    def predict(rows: Any, params: Any) -> Any:
        y = rows["x"] * 2
        if differs:
            if (rows["x"] < 0).any():
                raise ValueError("secret")
            y = y + 0.5 * (rows["x"] % 10 == 7)
        return pd.DataFrame({"y": y})

    return predict


def _breaking(rows: Any, params: Any) -> Any:
    return pd.DataFrame({"y": rows["length"] * 3})


class Story:
    """The model, its gateway and its page."""

    def __init__(self, uri: str, gateway: Gateway, page: Page) -> None:
        self.uri = uri
        self.registry = client(uri)
        self.gateway = gateway
        self.page = page

    def tag(self, **tags: str) -> None:
        """Set `modelmux.` tags of the model, and have them known."""
        for name, value in tags.items():
            self.registry.set_registered_model_tag(NAME, f"modelmux.{name}", value)
        self.gateway.sync()

    def told(self) -> dict[str, Any]:
        """What `/models/{name}` says."""
        return self.gateway.model(NAME)

    def until(self, what: str, is_so: Any) -> None:
        """Wait for what takes a process to start, or a report to come."""
        poll(is_so, timeout_s=_PATIENCE_S, what=what)

    def shadow(self) -> dict[str, Any]:
        """What `/models/{name}/shadow` says."""
        told: dict[str, Any] = self.gateway.client.get(f"/models/{NAME}/shadow").json()
        return told

    def side_of(self, session: str, x: float = 1.0) -> str:
        """The version that answers a session, by its own word, too."""
        answer = self.gateway.predict(NAME, {"x": x}, X_Session_ID=session)
        assert answer.status_code == 200, answer.text
        version: str = answer.headers["x-model-version"]
        return version

    def sides(self) -> list[str]:
        """Of forty sessions."""
        return [self.side_of(f"session {number}") for number in range(40)]

    def open_page(self) -> None:
        """The model's page as it is now."""
        self.page.goto(f"{self.gateway.url}/catalog/{NAME}")

    def command(self, *arguments: str) -> str:
        """What a command says that has to end well."""
        done = CliRunner().invoke(app, [*arguments, "--url", self.gateway.url])
        assert done.exit_code == 0, done.output
        return done.output


@pytest.fixture
def story(mlflow_uri: str, shared_gateway: Gateway, browser: Browser) -> Story:
    """The model's first version answers as the champion, and what is asked is captured."""
    page = browser.new_page()
    page.set_default_timeout(_PAGE_PATIENCE_MS)
    made = Story(mlflow_uri, shared_gateway, page)
    register(mlflow_uri, NAME, _doubles(differs=False), X, Y)
    made.registry.set_registered_model_alias(NAME, "champion", "1")
    made.tag(capture="100")
    made.until("version 1", lambda: made.gateway.predict(NAME, {"x": 1}).status_code == 200)
    return made


def test_a_version_is_rolled_out_and_back(story: Story) -> None:
    """Each step of a release is a tag or an alias, does what the README says, and can be seen."""
    register(story.uri, NAME, _doubles(differs=True), X, Y)
    story.registry.set_registered_model_alias(NAME, "challenger", "2")
    _shadow(story)
    _canary(story)
    _stopped(story)
    _promoted(story)
    _rolled_back(story)
    _remembered(story)
    _captured(story)
    _compared_in_a_job(story)


def _shadow(story: Story) -> None:
    """Beside a load that only the default answers: counted, and the rows that differ are seen."""
    story.tag(shadow="challenger")
    ask = Ask(model=NAME, answer=lambda n: [{"y": 2.0 * n}])
    with steady_load(story.gateway.url, ask, callers=4, pause_s=0.05) as load:

        def is_seen() -> bool:
            counts = story.shadow()["requests"]
            return bool(counts["equal"] >= 20 and counts["different"] >= 3)

        story.until("answers of the shadow", is_seen)
    assert load.figures.failures == [], str(load.figures)
    assert load.figures.wrong == []
    told = story.shadow()
    assert 0.5 < told["agreement"] < 1.0
    newest = told["disagreements"][0]
    assert newest["inputs"]["x"] % 10 == 7
    assert newest["shadow"]["y"] - newest["default"]["y"] == 0.5
    assert told["columns"][0]["difference"]["most"] == 0.5

    story.open_page()
    card = story.page.get_by_role("region", name="Shadow: version 2 beside version 1")
    expect(card.locator('[data-shadow="agreement"]')).to_contain_text("%")
    expect(card.get_by_role("img", name="Share of equal answers over time")).to_be_visible()
    rows = story.page.get_by_role("region", name="Rows that differ").get_by_role("row")
    expect(rows.nth(1).locator(".differs")).to_have_count(2)
    expect(rows.nth(1)).to_contain_text(newest["request_id"])


def _canary(story: Story) -> None:
    """Ten percent of the sessions, the same ones each time; who is in stays in when it grows."""
    story.tag(canary_max_error_ratio="0.2", canary="challenger:10")
    story.until("the canary", lambda: story.told()["canary"]["state"] == "running")
    few = story.sides()
    assert set(few) == {"1", "2"}
    assert few.count("2") < 16
    assert story.sides() == few
    story.tag(canary="challenger:70")
    many = story.sides()
    assert few.count("2") < many.count("2") < 40
    assert all(now == "2" for then, now in zip(few, many, strict=True) if then == "2")
    inside = _inside(many)
    named = story.gateway.predict(NAME, {"x": 1}, X_Session_ID=inside, X_Model_Version="1")
    assert named.headers["x-model-version"] == "1"


def _inside(sides: list[str]) -> str:
    return f"session {sides.index('2')}"


def _stopped(story: Story) -> None:
    """Made to fail it ends by itself, for all, which is said where people look."""
    inside = _inside(story.sides())

    def is_stopped() -> bool:
        story.gateway.predict(NAME, {"x": -1}, X_Session_ID=inside)
        return bool(story.told()["canary"]["state"] == "stopped")

    story.until("the canary stopped", is_stopped)
    assert "failed by its own doing" in story.told()["canary"]["why"]
    story.until("the default for those inside", lambda: story.side_of(inside, x=-1) == "1")
    metrics = story.gateway.client.get("/metrics").text
    assert f'modelmux_canary_stopped{{model="{NAME}",version="2"}} 1.0' in metrics
    story.open_page()
    card = story.page.get_by_role("region", name="Canary: version 2")
    expect(card).to_contain_text("Stopped")
    expect(card).to_contain_text("failed by its own doing")


def _promoted(story: Story) -> None:
    """By its alias; what the shadow's tag and the canary's said is done with then."""
    story.tag(canary="challenger:100")
    story.until("the canary again", lambda: story.told()["canary"]["state"] == "running")
    said = story.command("promote", NAME, "challenger", "--tracking-uri", story.uri)
    assert "As a shadow version 2 answered" in " ".join(said.split())
    story.until("version 2", lambda: story.told()["default_version"] == 2)
    assert story.told()["canary"]["state"] == "ended"
    assert story.shadow()["active"] is False
    assert story.gateway.predict(NAME, {"x": 7}).json() == [{"y": 14.5}]


def _rolled_back(story: Story) -> None:
    """In one act, after a version was let in that takes something else."""
    third = str(register(story.uri, NAME, _breaking, columns(("length", "double")), Y))
    story.registry.set_model_version_tag(NAME, third, "modelmux.accept_breaking", "true")
    story.command("promote", NAME, third, "--tracking-uri", story.uri)
    story.until("version 3", lambda: story.told()["default_version"] == 3)
    assert story.gateway.predict(NAME, {"length": 1}).json() == [{"y": 3.0}]
    assert story.gateway.predict(NAME, {"x": 7}).status_code == 422
    said = story.command("rollback", NAME, "--tracking-uri", story.uri)
    assert "goes back from version 3 to version 2" in " ".join(said.split())
    story.until("version 2 again", lambda: story.told()["default_version"] == 2)
    assert story.gateway.predict(NAME, {"x": 7}).json() == [{"y": 14.5}]


def _remembered(story: Story) -> None:
    """All of it is in the history, the newest first, with why."""
    entries = json.loads(story.command("history", NAME, "--limit", "100", "--json"))
    # A default that moves is held while it is loaded, where that takes any time.
    left_out = ("alias", "held", "released")
    events = [each["event"] for each in reversed(entries) if each["event"] not in left_out]
    assert events == [
        "added", "shadow", "canary_began", "canary_changed", "canary_stopped", "canary_began",
        "promoted", "canary_ended", "shadow", "accepted", "rolled_back",
    ]  # fmt: skip
    rolled_back = next(each for each in entries if each["event"] == "rolled_back")
    assert (rolled_back["before"], rolled_back["after"]) == (3, 2)
    assert all(each["why"] for each in entries if each["event"] not in left_out)
    story.open_page()
    expect(story.page.get_by_text("rolled back", exact=False).first).to_be_visible()


def _captured(story: Story) -> None:
    """What was asked and answered is a table of typed columns, errors among it."""
    folder = _captured_at(story) / NAME

    def rows() -> list[pd.DataFrame]:
        files = list(folder.glob("*/*.parquet"))
        if not files:
            return []
        found = pd.concat(map(pd.read_parquet, files))
        is_whole = {1, 2, 3} <= set(found["version"]) and 500 in set(found["status"])
        return [found] if is_whole else []

    (table,) = poll(rows, timeout_s=_PATIENCE_S, what="rows of all versions")
    good = table[(table["status"] == 200) & (table["version"] == 1)]
    assert (good["output.y"] == good["input.x"] * 2).all()
    failed = table[table["status"] == 500]
    assert set(failed["version"]) == {2}
    assert failed["output.y"].isna().all()


def _captured_at(story: Story) -> Path:
    return story.gateway.state_dir.parent / "captured"


def _compared_in_a_job(story: Story) -> None:
    """The exit code tells whether the answers to what was captured differ too often."""
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("modelmux")), "check", NAME, "2",
            "--against", "1", "--behaviour", "--on", "captured", "--rows", "200",
            "--at-most", "0.01", "--json", "--tracking-uri", story.uri,
        ],
        capture_output=True, text=True, check=False, timeout=_PATIENCE_S,
        env={**os.environ, "MODELMUX_CAPTURE_URL": str(_captured_at(story))},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    seen = json.loads(done.stdout)["behaviour"]
    assert 0.01 < seen["ratio"] < 0.9
    assert seen["columns"][0]["max"] == 0.5
    assert {row["inputs"]["x"] % 10 for row in seen["worst"] if row["error"] is None} <= {7.0}
