"""What stands before Ray Serve: predictions go no further, and Ray's options are ours to set."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from deployments.ingress.serve_middleware import Front, RequestFront
from gateway.http.predict.routes import PredictionRoutes

REQUEST_ID = b"x-request-id"
DEADLINE, UNWATCHED = b"x-request-timeout-seconds", b"x-request-disconnect-disabled"


async def seen(
    path: str, *headers: tuple[bytes, bytes], method: str = "GET"
) -> list[tuple[bytes, bytes]]:
    """The headers that an application behind the front gets."""
    found: list[tuple[bytes, bytes]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        found.extend(scope["headers"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def nothing() -> Any:
        raise AssertionError("nothing is received here")

    async def ignored(message: Any) -> None: ...

    scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
    await RequestFront(application)(scope, nothing, ignored)
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

    async def endpoint(scope: Any, receive: Any, send: Any) -> None:
        answered.append(scope["path_params"]["name"])

    routes = PredictionRoutes([("/models/{name}/predict", endpoint)])
    monkeypatch.setattr(Front, "routes", routes)
    monkeypatch.setattr(Front, "predictions", routes)
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


def plain(status: int) -> ASGIApp:
    """Ray's machinery where it answers in words of its own, with the id that it was given."""

    async def machinery(scope: Any, receive: Any, send: Any) -> None:
        given = dict(scope["headers"])[REQUEST_ID]
        headers = [(b"content-type", b"text/plain"), (b"X-Request-ID", given)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"Request dropped"})

    return machinery


async def asked(machinery: ASGIApp) -> httpx.Response:
    """What is answered in front of it."""
    transport = httpx.ASGITransport(RequestFront(machinery))
    async with httpx.AsyncClient(transport=transport, base_url="http://gw") as client:
        return await client.get("/models", headers={"X-Request-ID": "mine"})


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, "route_not_found"), (408, "gateway_unavailable"), (429, "gateway_unavailable"),
        (500, "internal_error"), (503, "gateway_unavailable"),
    ],
)  # fmt: skip
async def test_what_ray_says_in_its_own_words_becomes_a_problem(status: int, code: str) -> None:
    """Its plain text is left out, and the request's id is there once."""
    response = await asked(plain(status))
    assert response.json()["code"] == code
    assert response.status_code == response.json()["status"]
    assert response.headers.get_list("X-Request-ID") == ["mine"]
    assert "dropped" not in response.text


@pytest.mark.parametrize("error", [None, ZeroDivisionError, asyncio.CancelledError])
async def test_where_ray_says_nothing_there_is_a_problem(error: type[BaseException] | None) -> None:
    """Ray logs what an application raises and returns; uvicorn would say 500 in plain text."""

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        if error is not None:
            raise error

    response = await asked(silent)
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")


async def test_what_routes_answer_passes_as_it_is() -> None:
    """A plain text that is no error, and an error that is a problem document."""

    async def route(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/problem+json")]
        await send({"type": "http.response.start", "status": 418, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    assert (await asked(plain(200))).text == "Request dropped"
    assert ((await asked(route)).status_code, (await asked(route)).text) == (418, "{}")


async def test_what_ray_says_to_a_caller_who_left_is_not_sent() -> None:
    """Its 499 is for nobody."""

    async def send(message: Any) -> None:
        raise AssertionError(message)

    scope = {"type": "http", "method": "GET", "path": "/models", "headers": []}
    await RequestFront(plain(499))(scope, send, send)  # type: ignore[arg-type]
