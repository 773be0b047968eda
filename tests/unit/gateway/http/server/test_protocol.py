"""The server's protocol over a transport in memory: what is answered directly, and that nobody can
tell it from what isn't."""

from __future__ import annotations

import asyncio
import gc
import json
import re
from typing import Any

import pytest

from gateway.admission import AdmissionLimits
from gateway.canary import CanaryRule
from gateway.errors import InvalidInput, ModelFailed, ModelUnavailable, Violation
from gateway.http.access_control import Access
from gateway.http.server.protocol import GatewayProtocol
from gateway.ports import CallResult
from gateway.security.api_keys import entry_of
from tests.support.bodies_by_chance import Bodies
from tests.support.catalogs import catalog
from tests.support.server_in_memory import (
    GOOD,
    GOOD_TENSORS,
    ROUTES,
    SECRET,
    Keys,
    Server,
    by_each_protocol,
    held,
    is_direct,
    request,
    told_of,
    until,
)


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return await Server(monkeypatch).warm()


async def test_small_predictions_have_no_task_of_their_own(server: Server) -> None:
    """One write has the whole answer; the call is counted, has its line, and nothing stays
    inside."""
    caller = server.caller()
    caller.ask(GOOD, "X-Request-ID: mine", "Accept: */*", "User-Agent: one")
    assert await is_direct(caller)
    status, headers, body = await caller.answer()
    assert (status, json.loads(body)) == (200, [{"x": 3.0, "t": "t"}])
    assert caller.transport.writes == 1
    assert headers["x-request-id"] == "mine"
    assert (headers["date"], headers["server"], headers["x-model-version"]) == (
        "today", "uvicorn", "1",
    )  # fmt: skip
    assert re.fullmatch(r"predict;dur=\S+, model;dur=1.00, parse;dur=\S+", headers["server-timing"].rsplit(", ", 1)[0])  # fmt: skip  # noqa: E501
    line = server.entry()
    assert (line["path"], line["status"], line["model"], line["version"], line["rows"]) == (
        "/models/a%20b/predict", 200, "a b", 1, 1,
    )  # fmt: skip
    assert server.inside == (0, 0, 0)


async def test_each_protocol_is_answered_directly(server: Server) -> None:
    """In turn over one connection, with its own body, and counted by its own label."""
    caller = server.caller()
    told = {
        "modelmux": [{"x": 3.0, "t": "t"}],
        "mlflow": {"predictions": [{"x": 3.0, "t": "t"}]},
    }
    for number, protocol in enumerate([*ROUTES, *ROUTES], 1):
        before = server.counted()
        caller.ask_by(protocol)
        assert await is_direct(caller)
        status, headers, body = await caller.answer(number)
        assert (status, headers["x-model-version"]) == (200, "1")
        if protocol in told:
            assert json.loads(body) == told[protocol]
        else:
            assert [each["data"] for each in json.loads(body)["outputs"]] == [[3.0], ["t"]]
        counted = server.counted() - before
        assert (counted["a b", "1", "200", protocol], counted["rows", "a b", "1", protocol]) == (
            1,
            1,
        )
    assert caller.transport.writes == 2 * len(ROUTES)


@pytest.mark.parametrize(
    ("protocol", "path"),
    [
        *((protocol, route.path) for protocol, route in ROUTES.items()),
        ("mlflow", "/models/a%20b/versions/2/invocations"),
        ("inference_v2", "/v2/models/a%20b/versions/2/infer/"),
    ],
)
async def test_nobody_can_tell_which_way_an_answer_came(
    server: Server, monkeypatch: pytest.MonkeyPatch, protocol: str, path: str
) -> None:
    """Over hundreds of bodies, good ones and bad ones, status, headers and body are the same, what
    is counted, and what the access log says."""
    chance, directly = Bodies(7), 0
    for number in range(200):
        body, seen = chance.of(protocol), []
        for direct in (server.direct, None):
            monkeypatch.setattr(GatewayProtocol, "direct", direct)
            caller, before = server.caller(), server.counted()
            caller.ask(body, f"X-Request-ID: {number}", path=path)
            directly += await is_direct(caller)
            status, headers, answer = await caller.answer()
            await until(lambda: not server.state.tasks)
            assert headers.pop("server-timing", "").startswith("predict;") == (status == 200)
            counted, entry = server.counted() - before, server.entry()
            for varying in ("timestamp", "ms"):
                del entry[varying]
            assert sum(counted[labels] for labels in counted if labels[-1] == protocol) >= 1
            seen.append((status, headers, answer, counted, entry))
            assert server.inside == (0, 0, 0)
        assert seen[0] == seen[1], body
    assert directly > 40


@pytest.mark.parametrize(
    "line",
    [
        "X-Model-Version: 1", "serve_multiplexed_model_id: 1", "X-Request-Timeout: 5",
        "Accept: text/csv", "Origin: https://page", "Content-Encoding: identity",
        "Connection: close", "Upgrade: websocket",
    ],
)  # fmt: skip
@by_each_protocol
async def test_what_a_header_decides_is_left_to_the_endpoint(
    server: Server, line: str, protocol: str
) -> None:
    """Whoever asks for a version, a deadline, another form or the connection's end."""
    caller = server.caller()
    caller.ask_by(protocol, line)
    assert not await is_direct(caller)
    assert (await caller.answer())[0] == 200


@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "text/csv"])
@by_each_protocol
async def test_which_type_of_two_counts_is_left_to_the_endpoint(
    server: Server, media_type: str, protocol: str
) -> None:
    """Protocols take the first one or the last one."""
    asked = request(ROUTES[protocol].good, path=ROUTES[protocol].path)
    other = b"\r\nContent-Type: %b" % media_type.encode()
    for place in (b"\r\nContent-Type", b"\r\nContent-Length"):
        caller = server.caller()
        caller.send(asked.replace(place, other + place, 1))
        assert not await is_direct(caller)
        await caller.answer()
        await until(lambda: not server.state.tasks)


async def test_binary_tensors_are_left_to_the_endpoint(server: Server) -> None:
    """A header says where they begin."""
    caller = server.caller()
    caller.ask_by("inference_v2", f"Inference-Header-Content-Length: {len(GOOD_TENSORS)}")
    assert not await is_direct(caller)
    assert (await caller.answer())[0] == 200


@pytest.mark.parametrize("path", ["/models/other/predict", "/models/a%20b/predict?x=1", "/models"])
async def test_other_paths_are_left_to_the_application(server: Server, path: str) -> None:
    """Models that nobody knows, and whatever isn't a bare path of the typed route."""
    caller = server.caller()
    caller.ask(GOOD, path=path)
    assert not await is_direct(caller)
    await caller.answer()


async def test_a_new_catalog_counts_at_once(server: Server) -> None:
    """What a path meant is forgotten with the catalog that it was resolved in."""
    caller = server.caller()
    caller.ask(GOOD)
    await caller.answer()
    server.feed.catalog = catalog(generation=2)
    caller.ask(GOOD)
    assert (await caller.answer(2))[0] == 404


async def test_a_body_that_comes_in_pieces_is_waited_for_by_the_endpoint(server: Server) -> None:
    """Its time is limited there; however it is cut, the answer is the same."""
    whole = request(GOOD)
    for cut in range(1, len(whole)):
        caller = server.caller()
        caller.send(whole[:cut])
        caller.send(whole[cut:])
        status, _, body = await caller.answer()
        assert (status, json.loads(body)) == (200, [{"x": 3.0, "t": "t"}]), cut


async def test_pipelined_requests_are_answered_in_their_order(server: Server) -> None:
    """Direct ones, others, and again direct ones, in one piece."""
    caller = server.caller()
    server.backend.go.clear()
    others = b"GET /models/none HTTP/1.1\r\nHost: gateway\r\n\r\n"
    pieces = [request(b'{"x": %d, "n": 1}' % x) for x in range(3)]
    caller.send(pieces[0] + others + pieces[1] + pieces[2])
    server.backend.go.set()
    await caller.answer(4)
    assert [status for status, _, _ in caller.answers] == [200, 404, 200, 200]
    values = [json.loads(body)[0]["x"] for status, _, body in caller.answers if status == 200]
    assert values == [0.0, 2.0, 4.0]


async def test_callers_share_calls(server: Server) -> None:
    """Who comes while a call is on its way travels with the others in the next one, and has the
    answer to its own rows."""
    server.backend.go.clear()
    callers = [server.caller() for _ in range(20)]
    for number, caller in enumerate(callers):
        caller.ask(b'{"x": %d, "n": 1}' % number)
    await until(lambda: len(server.backend.calls) == 1)
    server.backend.go.set()
    for number, caller in enumerate(callers):
        assert json.loads((await caller.answer())[2])[0]["x"] == 2 * number
    assert len(server.backend.calls) < 5


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ModelFailed("It failed."), 500, "model_failed"),
        (ModelUnavailable("Away.", retry_after_s=3.0), 503, "model_unavailable"),
        (InvalidInput((Violation(pointer="/0/x", message="No."),)), 422, "invalid_input"),
        (ZeroDivisionError(), 500, "internal_error"),
        (SystemExit(), 500, "internal_error"),
    ],
)
@by_each_protocol
async def test_whatever_a_call_ends_with_is_a_problem(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    code: str,
    protocol: str,
) -> None:
    """The same as from the endpoint, with its line; and the connection goes on."""
    if protocol == "mlflow" and code in ("model_failed", "invalid_input"):
        status = 400
    media_type = "application/problem+json"
    if protocol == "inference_v2" and code != "internal_error":
        media_type = "application/json"
    problems = []
    for direct in (server.direct, None):
        monkeypatch.setattr(GatewayProtocol, "direct", direct)
        caller = server.caller()
        server.backend.error = error
        caller.ask_by(protocol, "X-Request-ID: mine")
        assert await is_direct(caller) is (direct is not None)
        told, headers, body = await caller.answer()
        assert (told, json.loads(body)["code"]) == (status, code)
        assert headers["content-type"] == media_type
        assert (headers.get("retry-after") == "3") == (status == 503)
        entry = server.entry()
        assert (entry["status"], entry["version"]) == (status, 1)
        problems.append((headers, body))
        server.backend.error = None
        for number in (2, 3):  # the first one after ModelUnavailable has no company
            caller.ask(GOOD)
            assert (await caller.answer(number))[0] == 200
        assert server.inside == (0, 0, 0)
    assert problems[0] == problems[1]


@by_each_protocol
async def test_large_answers_are_compressed_where_that_is_asked_for(
    server: Server, protocol: str
) -> None:
    """As the endpoint does it, with the rows that the call gave."""
    server.backend.text = "long " * 1000
    caller = server.caller()
    caller.ask_by(protocol, "Accept-Encoding: gzip")
    assert await is_direct(caller)
    status, headers, body = await caller.answer()
    assert (status, headers["content-encoding"]) == (200, "gzip")
    assert len(body) < 1000
    assert len(server.backend.calls) == 1
    assert (server.entry()["rows"], server.inside) == (1, (0, 0, 0))


async def test_the_deadline_holds(server: Server) -> None:
    """Past it the caller has 504, and the call that nobody waits for is given up."""
    (model,) = server.catalog.models.values()
    options = model.options.model_copy(update={"timeout_s": 0.05})
    server.feed.catalog = catalog(model.model_copy(update={"options": options}))
    server.backend.go.clear()
    caller = server.caller()
    caller.ask(GOOD)
    assert await is_direct(caller)
    status, _, body = await caller.answer()
    assert (status, json.loads(body)["code"]) == (504, "deadline_exceeded")
    assert server.inside == (0, 0, 0)


async def test_who_leaves_leaves_nothing(server: Server) -> None:
    """Its rows aren't sent any more, those of the others are; it has a line without a status."""
    server.backend.go.clear()
    first, leaving, staying = server.caller(), server.caller(), server.caller()
    for number, caller in enumerate((first, leaving, staying)):
        caller.ask(b'{"x": %d, "n": 1}' % number)
    await until(lambda: len(server.backend.calls) == 1)
    leaving.hang_up()
    assert server.entry()["status"] is None
    server.backend.go.set()
    await first.answer()
    await staying.answer()
    assert [call.frame.columns[0].tolist() for call in server.backend.calls] == [[0.0], [2.0]]
    assert leaving.transport.written == b""
    assert server.inside == (0, 0, 0)


async def test_who_leaves_while_the_answer_is_made_disturbs_nobody(server: Server) -> None:
    """Between the call's end and the answer's write nothing is counted or given back twice."""
    caller = server.caller()
    server.backend.go.clear()
    caller.ask(GOOD)
    await until(lambda: len(server.backend.calls) == 1)
    queued: Any = caller.protocol.cycle._answer._begun.queued  # type: ignore[attr-defined]
    queued.future.set_result(CallResult(output=("columns", ["x", "t"], [[1.0], ["t"]])))
    caller.hang_up()
    server.backend.go.set()
    await asyncio.sleep(0)
    assert caller.transport.written == b""
    assert server.inside == (0, 0, 0)


async def test_an_end_behind_a_pipelined_request_is_the_end_of_all(server: Server) -> None:
    """What can't be read closes the connection: who was under way on it gives back what it held,
    and writes nothing any more."""
    server.backend.go.clear()
    caller = server.caller()
    caller.send(request(GOOD) + request(GOOD) + b"nonsense\r\n\r\n")
    assert caller.transport.is_closed
    caller.hang_up()
    written = caller.transport.written
    server.backend.go.set()
    await until(lambda: not server.state.tasks)
    assert caller.transport.written == written
    assert server.inside == (0, 0, 0)


async def test_who_does_not_read_is_waited_for(server: Server) -> None:
    """While the transport has as much as it takes, the endpoint waits with the next answer."""
    caller = server.caller()
    caller.protocol.pause_writing()
    caller.ask(GOOD)
    assert not await is_direct(caller)
    await asyncio.sleep(0)
    assert caller.transport.written == b""
    caller.protocol.resume_writing()
    assert (await caller.answer())[0] == 200


@by_each_protocol
async def test_a_shadow_is_asked_what_was_answered_directly(
    monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """After the answer, which is written in one piece, and by the request's id."""
    server = Server(monkeypatch, has_shadow=True)
    await server.warm()
    await server.shadowing.settle()
    server.shadowing.take()
    server.backend.calls.clear()
    caller = server.caller()
    caller.ask_by(protocol)
    assert await is_direct(caller)
    assert (await caller.answer())[0] == 200
    assert caller.transport.writes == 1
    await server.shadowing.settle()
    assert [call.version.number for call in server.backend.calls] == [1, 2]
    assert server.shadowing.take()["a b"].outcomes == {"equal": 1}


@by_each_protocol
async def test_a_canary_has_its_callers_directly(
    monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """The same as by the ordinary way, and what comes of them is counted."""
    server = Server(monkeypatch, canary=CanaryRule(selector="2", percent=40.0))
    await server.warm()
    sessions = [f"X-Session-ID: s{number}" for number in range(40)]
    wanted = []
    for session in sessions:
        name, value = session.lower().encode().split(b": ")
        resolution = server.service.resolve("a b", None, [(name, value)])
        wanted.append(str(resolution.version.number))
    assert {*wanted} == {"1", "2"}
    for _ in range(2):  # the first one of a version warms it
        caller, before = server.caller(), server.trials.counts().get("the trial", (0, 0))
        for session in sessions:
            caller.ask_by(protocol, session)
            await caller.answer(len(caller.answers) + 1)
        assert [headers["x-model-version"] for _, headers, _ in caller.answers] == wanted
        if protocol == "inference_v2":
            told = [json.loads(body)["model_version"] for _, _, body in caller.answers]
            assert told == wanted
        requests, errors = server.trials.counts()["the trial"]
        assert (requests - before[0], errors) == (wanted.count("2"), 0)
    assert caller.transport.writes == len(sessions)


@by_each_protocol
async def test_what_is_captured_is_answered_directly_too(
    monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """Of a share each request is drawn once, and what is kept of one is what the endpoint keeps."""
    server = Server(monkeypatch, captured_percent=50.0)
    draws = iter([0.9, 0.1, 0.9, 0.1])
    monkeypatch.setattr("gateway.http.predict.capturing.random.random", lambda: next(draws))
    await server.warm()
    for is_kept in (True, False):
        caller, before = server.caller(), len(server.captured.kept)
        caller.ask_by(protocol)
        assert await is_direct(caller)
        assert (await caller.answer())[0] == 200
        assert len(server.captured.kept) - before == is_kept
    monkeypatch.setattr(GatewayProtocol, "direct", None)
    caller.ask_by(protocol)
    await caller.answer(2)
    await until(lambda: not server.state.tasks)
    directly, by_endpoint = map(told_of, server.captured.kept)
    assert directly == by_endpoint
    assert directly[:3] == (protocol, 200, None)


async def test_who_goes_to_a_canary_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the canary can't be asked directly: it isn't warm."""
    server = Server(monkeypatch, canary=CanaryRule(selector="2", percent=50.0))
    await server.warm()
    draws = iter([0.1, 0.9, 0.9])
    monkeypatch.setattr("gateway.canary.random", lambda: next(draws))
    caller = server.caller()
    caller.ask(GOOD)
    assert (await caller.answer())[1]["x-model-version"] == "2"
    caller.ask(GOOD)
    assert (await caller.answer(2))[1]["x-model-version"] == "1"
    assert next(draws) == 0.9


async def test_answers_leave_nothing_to_the_collector(server: Server) -> None:
    """It comes by late (`deployments.ingress.replica`), and rows would be kept until then."""
    caller = server.caller()
    caller.ask(GOOD)
    await caller.answer()
    gc.collect()
    gc.disable()
    try:
        before = held()
        for number in range(2, 12):
            caller.ask(GOOD)
            await caller.answer(number)
        assert held() - before < 5
    finally:
        gc.enable()


async def test_a_server_that_ends_answers_and_closes(server: Server) -> None:
    """What was accepted is answered, and the caller is told that the connection ends."""
    server.backend.go.clear()
    caller = server.caller()
    caller.ask(GOOD)
    caller.protocol.shutdown()
    server.backend.go.set()
    status, headers, _ = await caller.answer()
    assert (status, headers["connection"]) == (200, "close")
    assert caller.transport.is_closed


async def test_keys_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one it is 401; each request counts once against a key's rate, and past that it is
    429."""
    keys = Keys(entry_of("one", SECRET, ["predict"], rate="1/3"))
    access = Access(keys=keys)
    monkeypatch.setattr(access.usage, "_clock", lambda: 0.0)
    server = Server(monkeypatch, access=access)
    caller = server.caller()
    bearer = f"Authorization: Bearer {SECRET}"
    caller.ask(GOOD, bearer)
    assert (await caller.answer())[0] == 200
    monkeypatch.setattr(GatewayProtocol, "direct", server.direct)
    caller.ask(GOOD)
    assert (await caller.answer(2))[0] == 401
    for number, status in enumerate((200, 200, 429, 429), 3):
        caller.ask(GOOD, bearer)
        assert (await caller.answer(number))[0] == status
    assert server.entry()["key"] == "one"
    assert access.usage.refused["one"] == 2
    assert access.usage.requests["one"] == 5


@pytest.mark.parametrize("length", ["26", "0" * 5000 + "26"])
async def test_a_body_s_limit_holds(monkeypatch: pytest.MonkeyPatch, length: str) -> None:
    """Also one that is below what is answered directly, however the length is written."""
    server = await Server(monkeypatch, max_body_bytes=24).warm()
    caller = server.caller()
    caller.send(request(b'{"x": 1, "n": 12345678901}').replace(b"26", length.encode()))
    assert (await caller.answer())[0] == 413


async def test_limits_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than may wait for a model is 429, at once."""
    limits = AdmissionLimits(model_requests=2)
    server = await Server(monkeypatch, limits=limits).warm()
    server.backend.go.clear()
    callers = [server.caller() for _ in range(3)]
    for caller in callers:
        caller.ask(GOOD)
    assert (await callers[2].answer())[0] == 429
    server.backend.go.set()
    assert [(await caller.answer())[0] for caller in callers[:2]] == [200, 200]


async def test_what_cannot_be_read_is_a_problem(server: Server) -> None:
    """After a direct answer and in the middle of a request."""
    for piece in (b"nonsense\r\n\r\n", request(GOOD)[:30] + b"\x00\r\n\r\n"):
        caller = server.caller()
        caller.ask(GOOD)
        await caller.answer()
        caller.send(piece)
        status, headers, _ = await caller.answer(2)
        assert (status, headers["content-type"]) == (400, "application/problem+json")
        assert caller.transport.is_closed


async def test_a_websocket_s_handshake_is_a_plain_request(server: Server) -> None:
    """It is answered as what it asks for is."""
    caller = server.caller()
    lines = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    caller.send("\r\n".join(["GET /models HTTP/1.1", "Host: g", *lines, "", ""]).encode())
    assert (await caller.answer())[0] == 200
