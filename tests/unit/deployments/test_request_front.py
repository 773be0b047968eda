"""The headers by which Ray Serve takes options of a request are ours to set."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.request_front import RayRequestOptions

DEADLINE, UNWATCHED = b"x-request-timeout-seconds", b"x-request-disconnect-disabled"


async def seen(path: str, *headers: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """The headers that an application behind the front gets."""
    found: list[tuple[bytes, bytes]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        found.extend(scope["headers"])

    async def nothing(*_: Any) -> Any:
        raise AssertionError("nothing is received or sent here")

    scope = {"type": "http", "path": path, "headers": list(headers)}
    await RayRequestOptions(application)(scope, nothing, nothing)
    return found


@pytest.mark.parametrize("value", [b"0.001", b"abc", b"-1"])
async def test_a_caller_sets_no_deadline_of_ray_s(value: bytes) -> None:
    """Whatever a caller asks of Ray, its deadline is off: ours are answered in our envelope."""
    found = await seen("/models", (DEADLINE, value), (b"accept", b"*/*"), (DEADLINE, b"5"))
    assert found == [(b"accept", b"*/*"), (DEADLINE, b"0")]


async def test_only_predictions_are_watched_by_the_gateway_itself() -> None:
    """Ray stops looking for callers who leave where the gateway does it, and nowhere else."""
    assert (UNWATCHED, b"?1") in await seen("/models/m/predict", (UNWATCHED, b"?0"))
    assert UNWATCHED not in dict(await seen("/openapi.json", (UNWATCHED, b"?1")))
