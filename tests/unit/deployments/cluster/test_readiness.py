"""Waiting for a gateway: until it is ready, is told to stop, or Serve has given it up."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

import pytest

from deployments.cluster import readiness
from deployments.cluster.readiness import GatewayFailed, last_line, started, wait_until_ready
from deployments.settings import Settings
from tests.support.processes import free_port


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_POLL_S", 0.0)
    monkeypatch.setattr(readiness, "_ASK_SERVE_EVERY_S", 0.0)


def _settings() -> Settings:
    return Settings(tracking_uri="http://h:1", port=free_port())


def test_a_gateway_that_serve_gave_up_is_not_waited_for() -> None:
    """Nobody answers and Serve says why: the wait ends with its sentence."""
    answers: Iterator[str | None] = iter([None, None, "ModuleNotFoundError: No module"])
    with pytest.raises(GatewayFailed, match="can't be started: ModuleNotFoundError: No module"):
        list(wait_until_ready(_settings(), stop=Event(), failure=lambda: next(answers)))


def test_the_wait_ends_when_it_is_told_to() -> None:
    """Also while nobody answers."""
    stop = Event()

    def stopping() -> None:
        stop.set()

    assert list(wait_until_ready(_settings(), stop=stop, failure=stopping)) == []


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("", ""),
        ("Not enough.", "Not enough."),
        ("It failed. Error:\nTraceback …\n  at\nKeyError: 'x'\n\n", "KeyError: 'x'"),
    ],
)
def test_a_failure_is_told_in_one_line(message: str, line: str) -> None:
    """The one that says what was raised."""
    assert last_line(message) == line


def test_what_was_too_slow_is_started_once_more() -> None:
    """One failure of a kind that is known is undone and tried again; a second one is one line."""
    undone: list[str] = []

    def undo() -> None:
        undone.append("undone")

    tries = iter([TimeoutError("HTTP proxies\nnot available"), None])

    def slow() -> str:
        if (error := next(tries)) is not None:
            raise error
        return "there"

    assert started("Serve", slow, failures=(TimeoutError,), undo=undo) == "there"
    assert undone == ["undone"]

    def never() -> str:
        raise TimeoutError("HTTP proxies\nnot available")

    with pytest.raises(GatewayFailed, match=r"^Serve can't be started: not available$"):
        started("Serve", never, failures=(TimeoutError,), undo=undo)

    def broken() -> str:
        raise ValueError("no matter of time")

    with pytest.raises(ValueError, match="no matter of time"):
        started("Serve", broken, failures=(TimeoutError,), undo=undo)
