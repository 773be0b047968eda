"""The headers by which Ray Serve takes options of a request are ours to set."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from deployments.request_front import RayRequestOptions

REQUEST_ID, VERSION = b"x-request-id", b"x-model-version"
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


@pytest.mark.parametrize("name", [b"serve_multiplexed_model_id", b"serve-multiplexed-model-id"])
async def test_ray_s_header_for_a_version_is_one_of_ours(name: bytes) -> None:
    """Ray, which fails on what isn't UTF-8, doesn't see it; the gateway does, beside its own."""
    found = await seen("/models", (name, b"\xff"), (VERSION, b"2"))
    assert found[:-1] == [(VERSION, b"\xff"), (VERSION, b"2")]


@pytest.mark.parametrize("value", [b"", b"\xff", b"a b", b"a" * 129, b"a\x01"])
async def test_an_unusable_request_id_never_reaches_ray(value: bytes) -> None:
    """Ray answers with any id that it is given; a bad one is replaced before it sees it."""
    found = dict(await seen("/models", (REQUEST_ID, value)))
    assert len(found[REQUEST_ID]) == 32


async def test_the_first_of_two_request_ids_counts() -> None:
    """The header, the log and the body tell one and the same id."""
    found = await seen("/models", (REQUEST_ID, b"a"), (REQUEST_ID, b"b"))
    assert [value for name, value in found if name == REQUEST_ID] == [b"a"]


async def test_headers_that_are_no_text_are_left_out() -> None:
    """What Ray would fail to decode doesn't reach it."""
    found = await seen("/models", (b"x-session-id", b"\xff"), (b"accept", b"*/*"))
    assert found == [(b"accept", b"*/*"), (DEADLINE, b"0")]


async def test_a_websocket_is_refused_in_the_envelope() -> None:
    """The handshake is answered with a problem document."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def unused(*_: Any) -> Any:
        raise AssertionError("nothing is received, and no application asked")

    scope = {"type": "websocket", "path": "/", "raw_path": b"/", "headers": []}
    await RayRequestOptions(unused)(scope, unused, send)
    assert sent[0]["status"] == 404
    assert (b"content-type", b"application/problem+json") in sent[0]["headers"]
    assert json.loads(sent[1]["body"])["code"] == "route_not_found"


def test_uvicorn_has_the_method_that_is_replaced() -> None:
    """Its refusal of what it can't read is where we think it is, in both of its protocols."""
    for protocol in (H11Protocol, HttpToolsProtocol):
        assert list(inspect.signature(protocol.send_400_response).parameters) == ["self", "msg"]
