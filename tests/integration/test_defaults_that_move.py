"""Defaults that move while their model sleeps or the gateway is down, on a real registry and Ray.

One gateway that is ended and started again with what it had.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.harm import MODEL, processes_called
from tests.support.processes import Gateway, end, gateway, poll
from tests.support.registering import Predict, client, columns, register

_logger = logging.getLogger(__name__)

NUMBER, TEXT = columns(("x", "double")), columns(("x", "string"))
IDLE_S = 4.0


class Restartable:
    """A gateway that can be ended, and started again with what it had."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri = uri
        self._folder = folder
        self._stack = ExitStack()
        self.running: Gateway

    def start(self) -> None:
        environment = {"MODELMUX_INCLUDE": "moving-*", "MODELMUX_IDLE_TIMEOUT_S": str(IDLE_S)}
        self.running = self._stack.enter_context(
            gateway(self.uri, self._folder, "--poll-interval-s", "3600", environment=environment)
        )

    def stop(self) -> None:
        assert end(self.running.process) == 0
        self._stack.close()

    def add(self, name: str, factor: int, *, inputs: Any = NUMBER, breaks: bool = False) -> int:
        on_load = _break if breaks else None
        return register(self.uri, name, _times(factor), inputs, inputs, on_load=on_load)

    def serve(self, name: str) -> None:
        """Have version 1 registered, asked, and known as loaded."""
        self.add(name, 1)
        self.running.sync()
        assert self.running.predict(name, {"x": 1}).json() == [{"x": 1.0}]
        poll(lambda: f"{name}/1/" in self._kept(), what=f"{name} known as loaded")

    def held(self, name: str) -> dict[str, Any]:
        """What is held of a model once it is known that it can't be loaded."""
        found: dict[str, Any] = poll(
            lambda: (
                (held := self.running.model(name)["held"]) and "can't" in held["reason"] and held
            ),
            timeout_s=120,
            what=f"the word on the version of {name} that can't be loaded",
        )
        return found

    def _kept(self) -> str:
        file = self.running.state_dir / "catalog.json"
        return " ".join(json.loads(file.read_text())["loaded"])


def _times(factor: int) -> Predict:
    return lambda rows, params: rows * factor


def _break() -> None:
    raise RuntimeError("secret: this version can't be loaded")


@pytest.fixture(scope="module")
def served(mlflow_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restartable]:
    served = Restartable(mlflow_uri, tmp_path_factory.mktemp("moving"))
    served.start()
    yield served
    served.stop()


def test_a_broken_version_does_not_take_a_sleeping_model_down(served: Restartable) -> None:
    """A model whose replica was ended for want of calls is woken to try a new version: one that
    can't be loaded is held with the reason and the old one answers, a good one takes over."""
    name = "moving-asleep"
    served.serve(name)
    poll(
        lambda: not processes_called(served.running, f"{MODEL}{name}"),
        timeout_s=120,
        what="its sleep",
    )
    served.add(name, 2, breaks=True)
    served.running.sync()
    held = served.held(name)
    assert held["version"] == 2
    assert "secret" not in held["reason"]
    answer = served.running.predict(name, {"x": 1})
    assert (answer.status_code, answer.headers["X-Model-Version"]) == (200, "1")
    detail = poll(
        lambda: (now := served.running.model(name))["version_details"][0]["reason"] and now,
        what="the reason beside the version",
    )
    assert (detail["status"], detail["version_details"][0]["servable"]) == ("ready", False)
    served.add(name, 3)
    served.running.sync()
    poll(
        lambda: served.running.model(name)["default_version"] == 3, timeout_s=120, what="version 3"
    )
    assert served.running.predict(name, {"x": 1}).json() == [{"x": 3.0}]


def test_a_model_registered_anew_begins_a_new_contract(served: Restartable) -> None:
    """Deleted and registered again between two looks with another signature, it answers by that."""
    name = "moving-anew"
    served.serve(name)
    client(served.uri).delete_registered_model(name)
    served.add(name, 2, inputs=TEXT)
    served.running.sync()
    answer = served.running.predict(name, {"x": "ab"})
    assert (answer.status_code, answer.json()) == (200, [{"x": "abab"}])
    assert served.running.model(name)["held"] is None


def test_a_broken_version_that_came_meanwhile_does_not_take_a_model_down(
    served: Restartable,
) -> None:
    """It was registered while the gateway was down: the first look prepares it, holds it, and the
    version that was served before answers. What nobody called isn't started for its new default,
    and what wants a replica has one, whichever of its versions is the default."""
    down, uncalled, warm = "moving-down", "moving-uncalled", "moving-warm"
    served.serve(down)
    served.add(uncalled, 1)
    served.add(warm, 1)
    served.add(warm, 2)
    client(served.uri).set_registered_model_alias(warm, "champion", "1")
    client(served.uri).set_registered_model_tag(warm, "modelmux.min_replicas", "1")
    served.running.sync()
    served.stop()
    served.add(down, 2, breaks=True)
    served.add(uncalled, 2)
    served.start()
    assert served.held(down)["version"] == 2
    answer = served.running.predict(down, {"x": 1})
    assert (answer.status_code, answer.headers["X-Model-Version"]) == (200, "1")
    assert served.running.model(uncalled)["default_version"] == 2
    poll(
        lambda: processes_called(served.running, f"{MODEL}{warm}"),
        timeout_s=60,
        what="the process that is always there",
    )
    assert not processes_called(served.running, f"{MODEL}{uncalled}")
    client(served.uri).delete_registered_model(warm)
