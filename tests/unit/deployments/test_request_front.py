"""What stands before Ray Serve: predictions go no further, and Ray's options are ours to set."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.request_front import Front, RequestFront

DEADLINE, UNWATCHED = b"x-request-timeout-seconds", b"x-request-disconnect-disabled"


async def seen(
    path: str, *headers: tuple[bytes, bytes], method: str = "GET"
) -> list[tuple[bytes, bytes]]:
    """The headers that an application behind the front gets."""
    found: list[tuple[bytes, bytes]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        found.extend(scope["headers"])

    async def nothing(*_: Any) -> Any:
        raise AssertionError("nothing is received or sent here")

    scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
    await RequestFront(application)(scope, nothing, nothing)
    return found


@pytest.mark.parametrize("value", [b"0.001", b"abc", b"-1"])
async def test_a_caller_sets_no_deadline_of_ray_s(value: bytes) -> None:
    """Whatever a caller asks of Ray, its deadline is off: ours are answered in our envelope."""
    found = await seen("/models", (DEADLINE, value), (b"accept", b"*/*"), (DEADLINE, b"5"))
    assert found == [(b"accept", b"*/*"), (DEADLINE, b"0")]


async def test_whether_ray_watches_is_not_the_caller_s_to_say() -> None:
    """Ray goes on looking for callers who leave, where it passes a request on."""
    assert UNWATCHED not in dict(await seen("/openapi.json", (UNWATCHED, b"?1")))


async def test_predictions_are_answered_before_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once there is an ingress, predictions go to its endpoint, and everything else to Ray."""
    answered: list[str] = []

    class Endpoint:
        async def answer(self, name: str, *_: Any) -> None:
            answered.append(name)

    monkeypatch.setattr(Front, "predictions", Endpoint())
    assert await seen("/models/m/predict", method="POST") == []
    assert answered == ["m"]
    assert await seen("/models/m/predict", method="GET") == [(DEADLINE, b"0")]
    assert await seen("/models/m", method="POST") == [(DEADLINE, b"0")]
    assert answered == ["m"]
