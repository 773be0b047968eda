"""A canary's life on a real registry and Ray: sticky, stopped by itself, promoted by the alias."""

from __future__ import annotations

from typing import Any

from tests.support.processes import Gateway, poll
from tests.support.registering import Predict, client, columns, register

NUMBER = columns(("x", "double"))
NAME = "canary"


def _times(factor: int, *, fails_below: float) -> Predict:
    def predict(rows: Any, params: Any) -> Any:
        if (rows["x"] < fails_below).any():
            raise ValueError("secret")
        return rows * factor

    return predict


def _canary(gateway: Gateway, state: str) -> dict[str, Any]:
    """The canary once it is in that state."""

    def found() -> dict[str, Any] | None:
        canary: dict[str, Any] | None = gateway.model(NAME)["canary"]
        return canary if canary is not None and canary["state"] == state else None

    told: dict[str, Any] = poll(found, timeout_s=120, what=f"the canary {state}")
    return told


def _sides(gateway: Gateway) -> list[str]:
    """The versions that answer forty sessions, each by its own word, too."""
    sides = []
    for number in range(40):
        answer = gateway.predict(NAME, {"x": 1}, X_Session_ID=f"session {number}")
        assert answer.status_code == 200
        version = answer.headers["x-model-version"]
        assert answer.json() == [{"x": float(version)}]
        sides.append(version)
    return sides


def test_a_canary_is_sticky_stops_by_itself_and_is_promoted_by_the_alias(
    mlflow_uri: str, shared_gateway: Gateway
) -> None:
    """Who is in stays in when the share grows; what the version does wrong ends it, for all, with
    a word in the history and a metric; a changed tag begins anew, and the alias promotes."""
    registry = client(mlflow_uri)
    register(mlflow_uri, NAME, _times(1, fails_below=-10), NUMBER, NUMBER)
    registry.set_registered_model_alias(NAME, "champion", "1")
    register(mlflow_uri, NAME, _times(2, fails_below=0), NUMBER, NUMBER)
    registry.set_registered_model_alias(NAME, "challenger", "2")
    registry.set_registered_model_tag(NAME, "modelmux.canary_max_error_ratio", "0.2")
    registry.set_registered_model_tag(NAME, "modelmux.canary", "challenger:30")
    shared_gateway.sync()
    assert _canary(shared_gateway, "running")["version"] == 2

    before = _sides(shared_gateway)
    assert set(before) == {"1", "2"}
    assert _sides(shared_gateway) == before
    registry.set_registered_model_tag(NAME, "modelmux.canary", "challenger:70")
    shared_gateway.sync()
    after = _sides(shared_gateway)
    assert before.count("2") < after.count("2") < 40
    assert all(now == "2" for then, now in zip(before, after, strict=True) if then == "2")

    inside = f"session {after.index('2')}"
    named = shared_gateway.predict(NAME, {"x": 1}, X_Session_ID=inside, X_Model_Version="1")
    assert named.headers["x-model-version"] == "1"

    def is_stopped() -> bool:
        shared_gateway.predict(NAME, {"x": -1}, X_Session_ID=inside)
        return bool(shared_gateway.model(NAME)["canary"]["state"] == "stopped")

    poll(is_stopped, timeout_s=120, what="the canary stopped")
    assert "failed by its own doing" in _canary(shared_gateway, "stopped")["why"]
    poll(
        lambda: shared_gateway.predict(NAME, {"x": -1}, X_Session_ID=inside).status_code == 200,
        what="the default for those who were in",
    )
    told = shared_gateway.client.get("/metrics").text
    assert 'modelmux_canary_stopped{model="canary",version="2"} 1.0' in told

    registry.set_registered_model_tag(NAME, "modelmux.canary", "challenger:100")
    shared_gateway.sync()
    _canary(shared_gateway, "running")
    registry.set_registered_model_alias(NAME, "champion", "2")
    shared_gateway.sync()
    _canary(shared_gateway, "ended")
    assert shared_gateway.model(NAME)["default_version"] == 2
    entries = shared_gateway.client.get(f"/models/{NAME}/history").json()["entries"]
    # A default that moves is held while it is loaded.
    events = [each["event"] for each in reversed(entries) if each["event"] not in ("alias", "held")]
    assert events == [
        "added", "canary_began", "canary_changed", "canary_stopped", "canary_began", "promoted",
        "canary_ended",
    ]  # fmt: skip
