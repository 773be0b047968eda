"""Requests that come in one turn of the event loop, over transports in memory: read together,
travelling as one call, and answered as each would be alone."""

from __future__ import annotations

import asyncio
import gc
import json
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

from gateway.admission import AdmissionLimits
from gateway.canary import CanaryRule
from gateway.contract import Contract
from gateway.errors import InvalidInput, ModelFailed, ModelUnavailable, Violation
from gateway.http.server.protocol import GatewayProtocol
from gateway.ports import Call, CallResult
from tests.support.bodies_by_chance import Bodies
from tests.support.catalogs import catalog
from tests.support.server_in_memory import (
    GOOD,
    GOOD_TENSORS,
    ROUTES,
    Caller,
    Server,
    by_each_protocol,
    held,
    request,
    told_of,
    until,
)

BAD = -1.0


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return await Server(monkeypatch).warm()


def body_of(x: float) -> bytes:
    return b'{"x": %.1f, "n": 2, "t": "a"}' % x


def together(server: Server, *bodies: bytes, path: str = ROUTES["modelmux"].path) -> list[Caller]:
    """Callers who ask in one turn, each by a connection of its own."""
    callers = [server.caller() for _ in bodies]
    for caller, body in zip(callers, bodies, strict=True):
        caller.ask(body, path=path)
    return callers


class Refusing:
    """Has the backend refuse or fail for rows with a bad x, whoever else is in the call."""

    def __init__(self, server: Server, error: type[Exception]) -> None:
        self._inner = server.backend.call
        self._error = error
        server.backend.call = self.call  # type: ignore[method-assign]

    async def call(self, call: Call) -> CallResult:
        result = await self._inner(call)
        for row, x in enumerate(np.asarray(call.frame.columns[0]).tolist()):
            if x == BAD and self._error is InvalidInput:
                raise InvalidInput((Violation(pointer=f"/{row}/x", message="Not that."),))
            if x == BAD:
                raise self._error("By its own code.")
        return result


async def test_they_are_one_call_and_an_answer_each(server: Server) -> None:
    """With the rows of all; each is written at once, and has a line and an id of its own."""
    bodies = [body_of(1.5), b"[%b, %b]" % (body_of(2.0), body_of(3.0)), body_of(4.5)]
    callers = together(server, *bodies)
    answers = [await caller.answer() for caller in callers]
    assert [json.loads(body) for _, _, body in answers] == [
        [{"x": 3.0, "t": "t"}],
        [{"x": 4.0, "t": "t"}, {"x": 6.0, "t": "t"}],
        [{"x": 9.0, "t": "t"}],
    ]
    assert [call.frame.rows for call in server.backend.calls] == [4]
    assert [caller.transport.writes for caller in callers] == [1, 1, 1]
    assert len({headers["x-request-id"] for _, headers, _ in answers}) == 3
    server.journal.flush()
    assert sorted(json.loads(line)["rows"] for line in server.lines) == [1, 1, 2]
    assert server.inside == (0, 0, 0)


@pytest.mark.parametrize(
    ("protocol", "path"),
    [
        *((protocol, route.path) for protocol, route in ROUTES.items()),
        ("inference_v2", "/v2/models/a%20b/versions/2/infer"),
    ],
)
async def test_each_gets_what_it_would_get_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch, protocol: str, path: str
) -> None:
    """Over hundreds of bodies, good ones and bad ones, in crowds of any size: status, headers, body
    and what is counted are those of the ordinary way, one after the other."""
    chance, sizes = Bodies(11), random.Random(3)
    good, shared = ROUTES[protocol].good, 0
    for _ in range(40):
        crowd = range(sizes.randint(2, 12))
        is_calm = sizes.random() < 0.5
        bodies = [good if is_calm else chance.of(protocol) for _ in crowd]
        seen: list[tuple[list[Any], Counter[tuple[str, ...]]]] = []
        for direct in (server.direct, None):
            monkeypatch.setattr(GatewayProtocol, "direct", direct)
            before, calls = server.counted(), len(server.backend.calls)
            callers = [server.caller() for _ in crowd]
            found = []
            for number, (caller, body) in enumerate(zip(callers, bodies, strict=True)):
                caller.ask(body, f"X-Request-ID: {number}", path=path)
                if direct is None:
                    await caller.answer()
            for caller in callers:
                status, headers, body = await caller.answer()
                headers.pop("server-timing", None)
                found.append((status, headers, body))
            await until(lambda: not server.state.tasks)
            if direct is not None:
                shared += is_calm and len(server.backend.calls) - calls < len(crowd)
            seen.append((found, server.counted() - before))
            assert server.inside == (0, 0, 0)
        assert seen[0] == seen[1], bodies
    assert shared > 5


async def test_an_answer_that_cannot_be_sent_keeps_nobody_from_theirs(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who it was for gets a problem; those behind it get what is theirs."""
    small, told = server.service.small, iter([None])
    assert small is not None

    def answered(resolution: object) -> None:
        if next(told, 1) is None:
            raise RuntimeError

    monkeypatch.setattr(small, "answered", answered)
    callers = together(server, body_of(1.0), body_of(2.0), body_of(3.0))
    answers = [await caller.answer() for caller in callers]
    assert [status for status, _, _ in answers] == [500, 200, 200]
    assert json.loads(answers[2][2]) == [{"x": 6.0, "t": "t"}]
    await until(lambda: not server.state.tasks)
    assert [caller.answered for caller in callers] == [1, 1, 1]
    assert server.inside == (0, 0, 0)


@pytest.mark.parametrize(
    ("error", "status"), [(ModelFailed, 500), (InvalidInput, 422), (RuntimeError, 500)]
)
async def test_who_is_at_fault_fails_alone(
    server: Server, error: type[Exception], status: int
) -> None:
    """The others are answered; what is refused is told by its place in the body of its own."""
    Refusing(server, error)
    callers = together(server, body_of(1.0), b"[%b, %b]" % (GOOD, body_of(BAD)), body_of(2.0))
    answers = [await caller.answer() for caller in callers]
    assert [answer[0] for answer in answers] == [200, status, 200]
    assert json.loads(answers[2][2]) == [{"x": 4.0, "t": "t"}]
    if error is InvalidInput:
        (violation,) = json.loads(answers[1][2])["errors"]
        assert violation["pointer"] == "/1/x"
    await until(lambda: not server.state.tasks)
    assert server.inside == (0, 0, 0)


async def test_what_is_the_same_for_all_is_told_to_all(server: Server) -> None:
    """A model that is away: each has its own problem document and its line."""
    server.backend.error = ModelUnavailable("Away.")
    callers = together(server, *[GOOD] * 3)
    answers = [await caller.answer() for caller in callers]
    assert [(status, json.loads(body)["code"]) for status, _, body in answers] == [
        (503, "model_unavailable")
    ] * 3
    await until(lambda: not server.state.tasks)
    server.journal.flush()
    assert [json.loads(line)["status"] for line in server.lines] == [503] * 3
    assert server.inside == (0, 0, 0)


async def test_who_leaves_disturbs_nobody(server: Server) -> None:
    """Before it is read, and while the call is under way; when all have left that is cancelled."""
    server.backend.go.clear()
    first, second, third = together(server, body_of(1.0), body_of(2.0), body_of(3.0))
    first.hang_up()
    await until(lambda: len(server.backend.calls) == 1)
    assert server.backend.calls[0].frame.rows == 2
    second.hang_up()
    server.backend.go.set()
    assert json.loads((await third.answer())[2]) == [{"x": 6.0, "t": "t"}]
    assert (first.answered, second.answered) == (0, 0)
    server.journal.flush()
    assert sorted(str(json.loads(line)["status"]) for line in server.lines) == ["200", "None", "None"]  # fmt: skip  # noqa: E501
    assert server.inside == (0, 0, 0)

    server.backend.go.clear()
    callers = together(server, *[GOOD] * 3)
    await until(lambda: len(server.backend.calls) == 2)
    for caller in callers:
        caller.hang_up()
    caller = server.caller()
    server.backend.go.set()
    caller.ask(GOOD)
    assert (await caller.answer())[0] == 200
    assert server.inside == (0, 0, 0)


async def test_the_deadline_holds_for_all(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is told so when it has passed."""
    monkeypatch.setattr(server.service.small, "_patience_s", lambda model: 0.05)
    server.backend.go.clear()
    callers = together(server, *[GOOD] * 3)
    answers = [await caller.answer() for caller in callers]
    assert [status for status, _, _ in answers] == [504] * 3
    server.backend.go.set()
    await until(lambda: server.inside == (0, 0, 0))


async def test_who_was_late_is_told_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the call, which others still wait for, is then taken apart."""
    small = server.service.small
    server.backend.go.clear()
    first = server.caller()
    first.ask(GOOD)  # so that the others wait, and travel together
    await until(lambda: len(server.backend.calls) == 1)
    monkeypatch.setattr(small, "_patience_s", lambda model: 0.4)
    late = together(server, body_of(1.0), body_of(2.0))
    await asyncio.sleep(0)
    monkeypatch.setattr(small, "_patience_s", lambda model: 60.0)
    patient = together(server, body_of(3.0), body_of(4.0))
    await asyncio.sleep(0)
    released, server.backend.go = server.backend.go, asyncio.Event()
    released.set()
    await until(lambda: len(server.backend.calls) == 2)
    assert server.backend.calls[1].frame.rows == 4
    assert [(await caller.answer())[0] for caller in late] == [504] * 2
    server.backend.error = ModelFailed("By its own code.")
    server.backend.go.set()
    assert [(await caller.answer())[0] for caller in patient] == [500] * 2
    await until(lambda: not server.state.tasks)
    assert [caller.answered for caller in late] == [1, 1]
    server.journal.flush()
    assert len(server.lines) == 5
    assert server.inside == (0, 0, 0)


async def test_answers_that_cannot_be_written_together_are_written_one_by_one(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the reason: none of the callers is told of another's."""

    def failing(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(Contract, "render_each", failing)
    callers = together(server, body_of(1.0), body_of(2.0))
    found = [json.loads((await caller.answer())[2])[0]["x"] for caller in callers]
    assert found == [2.0, 4.0]
    assert len(server.backend.calls) == 1
    assert server.inside == (0, 0, 0)


async def test_large_answers_go_the_ordinary_way(server: Server) -> None:
    """Where they may be compressed; each is its caller's own."""
    server.backend.text = "long " * 1000
    callers = together(server, body_of(1.0), body_of(2.0))
    found = [json.loads((await caller.answer())[2]) for caller in callers]
    assert [each[0]["x"] for each in found] == [2.0, 4.0]
    assert found[0][0]["t"] == server.backend.text
    assert [call.frame.rows for call in server.backend.calls] == [2]


async def test_limits_hold_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than have room those who came last are refused, and the others are answered."""
    limits = AdmissionLimits(model_requests=3)
    server = await Server(monkeypatch, limits=limits).warm()
    callers = together(server, *[GOOD] * 5)
    statuses = [(await caller.answer())[0] for caller in callers]
    assert statuses == [200, 200, 200, 429, 429]
    await until(lambda: not server.state.tasks)
    assert server.inside == (0, 0, 0)


async def test_what_is_captured_of_each_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the ordinary way keeps it: of who is answered, refused, fails with all, or leaves."""
    server = await Server(monkeypatch, captured_percent=100.0).warm()
    found: list[list[tuple[Any, ...]]] = []
    bodies = [body_of(1.0), b"[%b, %b]" % (body_of(2.0), body_of(3.0)), b'{"x": 1}', body_of(4.0)]
    for direct in (server.direct, None):
        monkeypatch.setattr(GatewayProtocol, "direct", direct)
        server.captured.kept.clear()
        for error in (None, ModelFailed("By its own code."), ModelUnavailable("Away.")):
            server.backend.error = error
            for crowd in (bodies, [body_of(5.0), body_of(6.0)]):
                for caller in together(server, *crowd):
                    await caller.answer()
            # It was away: the next one warms it.
            server.backend.error = None
            caller = server.caller()
            caller.ask(GOOD)
            await caller.answer()
        server.backend.go.clear()
        calls = len(server.backend.calls)
        callers = together(server, body_of(7.0), body_of(8.0))
        await until(lambda calls=calls: len(server.backend.calls) > calls)
        for caller in callers:
            caller.hang_up()
        await until(lambda: not server.state.tasks and server.inside == (0, 0, 0))
        server.backend.go.set()
        found.append(sorted(map(told_of, server.captured.kept), key=str))
    assert found[0] == found[1]
    assert len(found[0]) == 3 * 7 + 2


@by_each_protocol
async def test_a_shadow_is_asked_of_each(monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    """By its own request's id, with its own rows."""
    server = await Server(monkeypatch, has_shadow=True).warm()
    await server.shadowing.settle()
    server.shadowing.take()
    server.backend.calls.clear()
    route = ROUTES[protocol]
    bodies = [route.good.replace(b"1.5", b"%.1f" % x) for x in (1.0, 2.0, 3.0)]
    for caller in together(server, *bodies, path=route.path):
        assert (await caller.answer())[0] == 200
    await server.shadowing.settle()
    asked = [call for call in server.backend.calls if call.version.number == 2]
    assert sorted(x for call in asked for x in call.frame.columns[0]) == [1.0, 2.0, 3.0]
    assert server.shadowing.take()["a b"].outcomes == {"equal": 3}


@by_each_protocol
async def test_canaries_have_their_callers(monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    """Of a crowd each goes where its header says, and what comes of the canary's is counted."""
    server = Server(monkeypatch, canary=CanaryRule(selector="2", percent=40.0))
    await server.warm()
    route, sessions = ROUTES[protocol], [f"X-Session-ID: s{number}" for number in range(40)]
    warm = server.caller()
    for number, session in enumerate(sessions, 1):
        warm.ask(route.good, session, path=route.path)
        await warm.answer(number)
    wanted = [headers["x-model-version"] for _, headers, _ in warm.answers]
    before = server.trials.counts()["the trial"][0]
    server.backend.calls.clear()
    callers = [server.caller() for _ in sessions]
    for caller, session in zip(callers, sessions, strict=True):
        caller.ask(route.good, session, path=route.path)
    answers = [await caller.answer() for caller in callers]
    assert [headers["x-model-version"] for _, headers, _ in answers] == wanted
    assert server.trials.counts()["the trial"] == (before + wanted.count("2"), 0)
    assert len(server.backend.calls) == 2
    server.backend.error = ModelUnavailable("Away.", by_model=True)
    callers = [server.caller() for _ in sessions]
    for caller, session in zip(callers, sessions, strict=True):
        caller.ask(route.good, session, path=route.path)
    assert {(await caller.answer())[0] for caller in callers} == {503}
    assert server.trials.counts()["the trial"][1] == wanted.count("2")


async def test_they_leave_nothing_to_the_collector(server: Server) -> None:
    """Nor do those who hang up, of whom there may be many."""
    for caller in together(server, *[GOOD] * 3):
        await caller.answer()
    gc.collect()
    gc.disable()
    try:
        before = held()
        for _ in range(10):
            first, *others = together(server, *[GOOD] * 3)
            first.hang_up()
            for caller in others:
                await caller.answer()
            callers = together(server, *[GOOD] * 3)
            await asyncio.sleep(0)
            for caller in callers:
                caller.hang_up()
        await until(lambda: server.inside == (0, 0, 0))
        del first, others, callers, caller
        await until(lambda: held() - before < 5)
        assert held() - before < 5
    finally:
        gc.enable()


async def test_versions_are_apart(server: Server) -> None:
    """They don't share calls, nor are they read together."""
    path = ROUTES["inference_v2"].path
    other = path.replace("/infer", "/versions/2/infer")
    warm = server.caller()
    warm.ask(GOOD_TENSORS, path=other)
    await warm.answer()
    server.backend.calls.clear()
    callers = [*together(server, *[GOOD_TENSORS] * 2, path=path)]
    callers += together(server, *[GOOD_TENSORS] * 3, path=other)
    answers = [await caller.answer() for caller in callers]
    assert [headers["x-model-version"] for _, headers, _ in answers] == [*"11222"]
    rows = Counter[int]()
    for call in server.backend.calls:
        rows[call.version.number] += call.frame.rows
    assert rows == {1: 2, 2: 3}


class Counting:
    """Counts the heads that are parsed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.heads = 0
        inner = GatewayProtocol.on_headers_complete

        def counted(protocol: GatewayProtocol) -> None:
            self.heads += 1
            inner(protocol)

        monkeypatch.setattr(GatewayProtocol, "on_headers_complete", counted)


@by_each_protocol
async def test_a_head_that_came_before_is_not_parsed_again(
    server: Server, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """Byte by byte the same, over any connection; with another body of that length it says what
    that body says."""
    parsed, route = Counting(monkeypatch), ROUTES[protocol]
    caller = server.caller()
    for number in range(1, 6):
        caller.ask(route.good, path=route.path)
        assert (await caller.answer(number))[0] == 200
    other = server.caller()
    other.ask(route.good.replace(b"1.5", b"2.5"), path=route.path)
    assert b"5.0" in (await other.answer())[2]
    other.ask(route.good.replace(b"1.5", b"  ]"), path=route.path)
    assert (await other.answer(2))[0] in (400, 422)
    other.ask(route.good, path=route.path)
    assert (await other.answer(3))[0] == 200
    assert parsed.heads == 1


async def test_a_head_counts_for_its_own_body_alone(server: Server) -> None:
    """One that is cut, or has the next request behind it, is parsed as any other."""
    whole = request(GOOD)
    for cut in (1, 20, len(whole) - len(GOOD), len(whole) - 1):
        caller = server.caller()
        caller.send(whole)
        await caller.answer()
        caller.send(whole[:cut])
        await asyncio.sleep(0)
        caller.send(whole[cut:])
        assert (await caller.answer(2))[0] == 200
    caller = server.caller()
    caller.send(whole)
    await caller.answer()
    caller.send(whole + whole + b"GET /models HTTP/1.1\r\nHost: gateway\r\n\r\n")
    assert [(await caller.answer(number))[0] for number in (2, 3, 4)] == [200] * 3


async def test_a_head_behind_a_request_that_is_under_way_waits(server: Server) -> None:
    """Answers come in the order of their requests."""
    caller = server.caller()
    caller.ask(body_of(1.0))
    await caller.answer()
    server.backend.go.clear()
    for x in (2.0, 3.0, 4.0):
        caller.ask(body_of(x))
        await asyncio.sleep(0)
    server.backend.go.set()
    found = [json.loads((await caller.answer(number))[2])[0]["x"] for number in (2, 3, 4)]
    assert found == [4.0, 6.0, 8.0]


async def test_a_head_is_forgotten_with_the_catalog(server: Server) -> None:
    """What it asks for may be gone."""
    caller = server.caller()
    caller.ask(GOOD)
    await caller.answer()
    server.feed.catalog = catalog(generation=2)
    caller.ask(GOOD)
    assert (await caller.answer(2))[0] == 404


async def test_heads_are_remembered_within_bounds(server: Server) -> None:
    """However many there are, and none that is long."""
    caller = server.caller()
    for number in range(1, 1200):
        caller.ask(GOOD, f"X-Trace: {number}")
        await caller.answer(1)
        caller.transport.written = b""
    assert len(server.direct.heads._heads) <= 1024
    before = len(server.direct.heads._heads)
    caller.ask(GOOD, f"X-Trace: {'x' * 4000}")
    await caller.answer()
    assert len(server.direct.heads._heads) == before
