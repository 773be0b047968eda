"""What stands before Ray Serve: predictions go no further, and Ray's options are ours to set."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from deployments.ingress import serve_middleware as request_front
from deployments.ingress.serve_middleware import Front, RequestFront

REQUEST_ID = b"x-request-id"
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


async def beside_the_id(*headers: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """The headers but for the request's id, which there always is."""
    found = await seen("/models", *headers)
    assert [name for name, _ in found].count(REQUEST_ID) == 1
    return [header for header in found if header[0] != REQUEST_ID]


@pytest.mark.parametrize("value", [b"0.001", b"abc", b"-1"])
async def test_a_caller_sets_no_deadline_of_ray_s(value: bytes) -> None:
    """Whatever a caller asks of Ray, its deadline is off: ours are answered in our envelope."""
    found = await beside_the_id((DEADLINE, value), (b"accept", b"*/*"), (DEADLINE, b"5"))
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
    assert (DEADLINE, b"0") in await seen("/models/m/predict", method="GET")
    assert (DEADLINE, b"0") in await seen("/models/m", method="POST")
    assert answered == ["m"]


@pytest.mark.parametrize("value", [b"", b"\xff", b"a b", b"a" * 129, b"a\x01"])
async def test_an_unusable_request_id_never_reaches_ray(value: bytes) -> None:
    """Ray answers with any id that it is given; a bad one is replaced before it sees it."""
    found = dict(await seen("/models", (REQUEST_ID, value)))
    assert len(found[REQUEST_ID]) == 32


async def test_the_first_of_two_request_ids_counts() -> None:
    """The header, the log and the body tell one and the same id."""
    found = await seen("/models", (REQUEST_ID, b"a"), (REQUEST_ID, b"b"))
    assert [value for name, value in found if name == REQUEST_ID] == [b"a"]


async def test_headers_that_ray_would_fail_to_decode_do_not_reach_it() -> None:
    """Neither what is no text nor its own header for a version, which no other route looks at."""
    theirs = (b"serve_multiplexed_model_id", b"serve-multiplexed-model-id", b"x-session-id")
    found = await beside_the_id(*((name, b"\xff") for name in theirs), (b"accept", b"*/*"))
    assert found == [(b"accept", b"*/*"), (DEADLINE, b"0")]


@pytest.mark.parametrize("protocol", [HttpToolsProtocol, H11Protocol])
async def test_answers_of_uvicorn_are_one_write(
    protocol: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvicorn's own protocols take the transport that joins a head and its body."""
    server = ServerState()

    async def hello(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    monkeypatch.setattr(request_front, "AutoHTTPProtocol", type("Front", (protocol,), {}))
    request_front.join_writes()
    request_front.join_writes()  # as often as Ray asks for the middlewares
    config = Config(hello, log_config=None)
    config.load()
    written: list[bytes] = []

    class Below(asyncio.Transport):
        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return default

        def write(self, data: Any) -> None:
            written.append(bytes(data))

        def is_closing(self) -> bool:
            return False

        def close(self) -> None: ...

        def resume_reading(self) -> None: ...

        def pause_reading(self) -> None: ...

    connection = request_front.AutoHTTPProtocol(config=config, server_state=server, app_state={})
    connection.connection_made(Below())
    connection.data_received(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
    await asyncio.gather(*server.tasks)
    connection.connection_lost(None)
    assert written[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"hello" in written[0]
