"""Small predictions, answered without a task of their own.

A shortcut and nothing more (docs/decisions/0055). What it takes, it answers as `PredictEndpoint`
does, in a part of the time: all that came in one turn of the event loop is read at once,
travels as one call, or with others, and is answered at once, each by one write.
What it doesn't take (anything odd in the head, anything wrong with the body, a version that isn't
warm) goes the ordinary way, which begins anew. An answer that isn't small and good goes it from
there on. Must not import ray or mlflow.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence, Set
from contextvars import Context
from functools import partial
from typing import NamedTuple, Protocol
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.admission import Visit
from gateway.capture.kept import Kept
from gateway.catalog import Catalog, Resolution
from gateway.contract import Form
from gateway.errors import GatewayError
from gateway.frame_calls import placed
from gateway.http.access_control import Access
from gateway.http.access_log import AccessEntry, AccessJournal, note_answer
from gateway.http.boundary import BEGAN
from gateway.http.predict.answering import Answer, Exchange, server_timing
from gateway.http.predict.body import length_of
from gateway.http.predict.compression import WORTH_BYTES
from gateway.http.predict.endpoint import DRAWN, PredictEndpoint
from gateway.http.predict.negotiation import JSON
from gateway.http.predict.routes import PredictionRoutes
from gateway.http.predict.version_header import SELECTING
from gateway.http.request_identity import request_id_of
from gateway.ports import CallResult
from gateway.prediction import Prediction, PredictionService, drawn
from gateway.small_predictions import MOST_BYTES, Begun, Jointly, SmallPredictions

_logger = logging.getLogger(__name__)

_REMEMBERED = 4096
_REMEMBERED_HEADS = 1024
_END_OF_HEAD = b"\r\n\r\n"
_LONGEST_HEAD = 2048
_ANYTHING = (b"*/*", JSON)

# What they say decides how a request is read or answered: the ordinary way knows how.
_DECIDING = SELECTING | {
    b"content-encoding",
    b"expect",
    b"origin",
    b"transfer-encoding",
    b"upgrade",
    b"x-request-timeout",
}

_HEAD = b"content-type: %b\r\nx-model-version: %d\r\nserver-timing: %b\r\n%b"
_HEAD_OF_ONE = b"%bcontent-length: %d\r\nx-request-id: %b\r\n"

# So many are read at once: who comes next doesn't wait for more of them.
_MOST_AT_ONCE = 64


class Taken(NamedTuple):
    """What a request asks for that is taken, by which path, whom and in which form (in which other
    one where it goes to a canary), and by which version or alias; which headers it may not have,
    and how long its body may be."""

    path: str
    endpoint: PredictEndpoint
    resolution: Resolution
    form: Form
    canary_form: Form
    selector: str | None
    deciding: Set[bytes]
    most_bytes: int


class KnownHead(NamedTuple):
    """A request's head that has come before."""

    target: bytes
    headers: Sequence[tuple[bytes, bytes]]
    length: int
    taken: Taken


class Ending(Protocol):
    """How a server has a direct answer."""

    def answer(self, head: bytes, body: bytes) -> None:
        """Send an answer with status 200: the lines of its head, and its body."""

    def go_on(self, app: ASGIApp) -> None:
        """Have an application answer instead, to whom the request's body has come already."""

    def begin_anew(self) -> None:
        """Have the request answered the ordinary way, as if it had come just now."""


Around = Callable[[ASGIApp], ASGIApp]
"""Puts around an application what is around the ordinary way, too."""


class DirectPredictions:
    """Takes small predictions from a server's connections for those `routes` whose paths name the
    model.

    `access`, `journal` and `around` are those of the ordinary way; `head` are lines that the heads
    of all answers have.
    """

    def __init__(
        self,
        service: PredictionService,
        small: SmallPredictions,
        routes: PredictionRoutes,
        *,
        access: Access | None,
        journal: AccessJournal | None,
        around: Around,
        head: bytes = b"",
    ) -> None:
        self.small = small
        self._service = service
        self._routes = routes
        self.around = around
        self.head = head
        self._access = access
        self._journal = journal
        self._resolved_in: Catalog | None = None
        self._resolved: dict[bytes, Taken] = {}
        self._heads: dict[bytes, KnownHead] = {}
        self._arrived: list[DirectAnswer] = []

    def asked(self, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Taken | None:
        """What a POST to that target with those headers asks for; None where it isn't taken."""
        taken = self._taken(target)
        if taken is None:
            return None
        is_json, length = False, b""
        for name, value in headers:
            if name in taken.deciding:
                return None
            if name == b"content-type":
                if value != JSON:
                    return None
                is_json = True
            elif name == b"content-length":
                length = value
            elif name == b"accept" and value not in _ANYTHING:
                return None
        is_small = length.isdigit() and length_of(length) <= taken.most_bytes
        return taken if is_json and is_small else None

    def known(self, data: bytes) -> KnownHead | None:
        """What `data` asks for, where it is a whole request with a head that was remembered: a
        client's next request mostly has the same one, byte by byte."""
        if self._service.current is not self._resolved_in:
            return None
        end = data.find(_END_OF_HEAD, 0, _LONGEST_HEAD) + len(_END_OF_HEAD)
        head = self._heads.get(data[:end])
        return head if head is not None and len(data) == end + head.length else None

    def remember(
        self,
        data: bytes,
        target: bytes,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes,
        taken: Taken,
    ) -> None:
        """Know the head of a request that was `asked` for and came as `data`, for as long as the
        catalog is the same."""
        end = data.find(_END_OF_HEAD, 0, _LONGEST_HEAD) + len(_END_OF_HEAD)
        if data[end:] != body or end < len(_END_OF_HEAD):
            return
        if len(self._heads) >= _REMEMBERED_HEADS:
            self._heads.clear()
        self._heads[data[:end]] = KnownHead(target, headers, len(body), taken)

    def begin(self, taken: Taken, scope: Scope, body: bytes) -> DirectAnswer | None:
        """Begin to answer a request whose body is there; None where the ordinary way has to be
        gone.

        It is read in the event loop's next turn, with all that came in this one: who reads many
        requests at once needs a part of the time for each.
        """
        began = time.perf_counter()
        try:
            answer = self._admitted(taken, scope, body, began)
        # A boundary: in the turn of a connection, its server would take an exception for a request
        # that can't be read. The ordinary way has it again, and says what it is.
        except Exception:
            _logger.exception("a prediction could not be begun directly")
            return None
        if answer is not None:
            if not self._arrived:
                asyncio.get_running_loop().call_soon(self._read, context=Context())
            self._arrived.append(answer)
        return answer

    def note(self, scope: Scope, status: int | None, began: float) -> None:
        """Have a line in the access log; of one who left, without a status."""
        if self._journal is not None:
            spent_s = time.perf_counter() - began
            self._journal.add(AccessEntry(time.time(), scope, status, spent_s))

    def _admitted(
        self, taken: Taken, scope: Scope, body: bytes, began: float
    ) -> DirectAnswer | None:
        endpoint, resolution, form = taken.endpoint, taken.resolution, taken.form
        try:
            if self._access is not None:
                self._access.identify(scope).require_call(resolution.model.name)
            if resolution.canary is not None:
                # Once: the ordinary way, where that is to be gone, takes it as it was drawn.
                resolution = scope[DRAWN] = drawn(resolution, scope["headers"])
                if not self.small.takes(resolution):
                    return None
                if resolution is not taken.resolution:
                    form = taken.canary_form
            kept = endpoint.begin_capture(scope, resolution, taken.selector)
            visit = self._service.arrive(resolution)
        except GatewayError:
            return None
        visit.hold_bytes(len(body))  # of one so small: it always has room
        return DirectAnswer(self, endpoint, scope, resolution, form, body, visit, kept, began)

    def _read(self) -> None:
        arrived, self._arrived = self._arrived, []
        alike: dict[tuple[int, int], list[DirectAnswer]] = {}
        for answer in arrived:
            if not answer.is_left:
                key = (id(answer.resolution), id(answer.form))
                alike.setdefault(key, []).append(answer)
        for answers in alike.values():
            for start in range(0, len(answers), _MOST_AT_ONCE):
                self._begin(answers[start : start + _MOST_AT_ONCE])

    def _begin(self, answers: Sequence[DirectAnswer]) -> None:
        try:
            if len(answers) > 1 and self._begin_together(answers):
                return
        # A boundary: one of them has what nobody has thought of, and is found by itself.
        except Exception:
            _logger.exception("%d predictions could not be begun together", len(answers))
        for answer in answers:
            answer.begin_alone()

    def _begin_together(self, answers: Sequence[DirectAnswer]) -> bool:
        first = answers[0]
        jointly = self.small.begin_together(
            first.resolution,
            first.form,
            [answer.body for answer in answers],
            [answer.visit for answer in answers],
            lambda number, begun: answers[number].go_alone(begun),
        )
        if jointly is None:
            return False
        for number, answer in enumerate(answers):
            answer.go_with(jointly, number)
        jointly.future.add_done_callback(partial(self._answer_together, jointly, answers))
        return True

    def _answer_together(
        self,
        jointly: Jointly,
        answers: Sequence[DirectAnswer],
        future: asyncio.Future[CallResult],
    ) -> None:
        if future.cancelled():  # each is by itself, or all have left
            jointly.release()
            return
        here = [answer for answer in answers if not answer.is_left]
        try:
            bodies, timings_ms = self.small.end_together(jointly, len(here))
            if bodies is None or max(map(len, bodies)) >= WORTH_BYTES:
                for answer, begun in zip(answers, jointly.each(), strict=True):
                    answer.go_alone(begun)
                return
            head = self.head_of(jointly.resolution, JSON, timings_ms)
        # A boundary: what a batch ends with is told by the ordinary way, whatever it is.
        except BaseException as error:  # noqa: BLE001
            for answer in here:
                answer.go_on(error)
            return
        finally:
            jointly.release()
        for number, (answer, body) in enumerate(zip(answers, bodies, strict=True)):
            if answer.is_left:
                continue
            try:
                answer.end_with(jointly, number, head, body)
            # A boundary: the next ones are answered, whatever it is with this one.
            except Exception as error:
                _logger.exception("a prediction could not be answered directly")
                if not answer.is_answered:
                    answer.go_on(error)

    def head_of(
        self, resolution: Resolution, media_type: bytes, timings_ms: Mapping[str, float]
    ) -> bytes:
        """The lines of an answer's head that are the same for all who travelled together."""
        number = resolution.version.number
        return _HEAD % (media_type, number, server_timing(timings_ms), self.head)

    def _taken(self, target: bytes) -> Taken | None:
        """By a target that is nothing but a path. What is found is kept for as long as the catalog
        is the same."""
        catalog = self._service.current
        if catalog is not self._resolved_in:
            self._resolved_in, self._resolved, self._heads = catalog, {}, {}
        found = self._resolved.get(target)
        return self._taken_anew(target) if found is None else found

    def _taken_anew(self, target: bytes) -> Taken | None:
        if not target.isascii() or b"?" in target or b"#" in target:
            return None
        path = unquote(target.decode("ascii"))
        endpoint, said = self._routes.found(path) or (None, {})
        if not isinstance(endpoint, PredictEndpoint) or not self._service.knows(said["name"]):
            return None
        try:
            resolution = self._service.resolve(said["name"], said.get("selector"))
        except GatewayError:
            return None
        if not self.small.takes(resolution):
            return None
        if len(self._resolved) >= _REMEMBERED:
            self._resolved.clear()
        form, canary = endpoint.form_of_json(resolution), resolution.canary
        taken = self._resolved[target] = Taken(
            path=path,
            endpoint=endpoint,
            resolution=resolution,
            form=form,
            canary_form=form if canary is None else endpoint.form_of_json(canary.resolution),
            selector=said.get("selector"),
            deciding=_DECIDING | endpoint.deciding,
            most_bytes=min(MOST_BYTES, endpoint.max_body_bytes),
        )
        return taken


class DirectAnswer:
    """A prediction that was begun. It ends with an answer that is written, with an application that
    goes on from there, or with nothing for a caller who has left."""

    __slots__ = (
        "_began", "_begun", "_direct", "_ending", "_endpoint", "_jointly", "_kept", "_scope",
        "body", "form", "is_answered", "is_left", "resolution", "visit",
    )  # fmt: skip

    def __init__(
        self,
        direct: DirectPredictions,
        endpoint: PredictEndpoint,
        scope: Scope,
        resolution: Resolution,
        form: Form,
        body: bytes,
        visit: Visit,
        kept: Kept | None,
        began: float,
    ) -> None:
        self.resolution = resolution
        self.form = form
        self.body = body
        self.visit = visit
        self.is_answered = self.is_left = False
        self._direct = direct
        self._endpoint = endpoint
        self._scope = scope
        self._kept = kept
        self._began = began
        self._jointly: Jointly | None = None
        self._begun: Begun | None = None

    def when_done(self, ending: Ending) -> None:
        """Have it end so."""
        self._ending = ending

    def begin_alone(self) -> None:
        """Have its call on its way."""
        try:
            begun = self._direct.small.begin(self.resolution, self.form, self.body, self.visit)
        # A boundary: the ordinary way has it again, and says what it is.
        except Exception:
            _logger.exception("a prediction could not be begun directly")
            begun = None
        if begun is None:
            self.visit.leave()
            self._ending.begin_anew()
        else:
            if self._kept is not None:
                self._kept.note_request(begun.request, len(self.body))
            self.go_alone(begun)

    def go_alone(self, begun: Begun) -> None:
        """Have it end when that is done."""
        if self.is_left:
            begun.leave()
            return
        self._begun, self._jointly = begun, None
        begun.future.add_done_callback(self._done)

    def go_with(self, jointly: Jointly, number: int) -> None:
        """It ends with others, as one of that number, unless it goes alone already."""
        if self._begun is None:
            self._jointly = jointly
        if self._kept is not None:
            self._kept.note_request(jointly.joint.request(number), len(self.body))

    def end_with(self, jointly: Jointly, number: int, head: bytes, body: bytes) -> None:
        """Send what was made for all together."""
        shadowing = self._direct.small.shadowing if self.resolution.shadow else None
        is_offered = shadowing is not None and shadowing.wants(
            self.resolution, len(self.body) + len(body)
        )
        if self._kept is not None:
            assert self._kept.request is not None
            result = jointly.result_of(number)
            self._kept.note_outputs(placed(self._kept.request, [result]), len(body))
        self._direct.small.answered(self.resolution)
        self.answer(head, body, jointly.joint.sizes[number])
        if is_offered:
            self._direct.small.offer(jointly, number, len(body))(request_id_of(self._scope))

    def leave(self) -> None:
        """The caller is gone."""
        self.is_left = True
        if self._begun is not None:
            self._begun.leave()
        elif self._jointly is not None:
            self._jointly.leave()
        self._jointly = None
        self.visit.leave()
        name, version = self.resolution.model.name, self.resolution.version.number
        self._endpoint.note_left(self._scope, name, time.perf_counter() - self._began)
        note_answer(self._scope, name, version, None)
        self._direct.note(self._scope, None, self._began)

    def _done(self, future: asyncio.Future[CallResult]) -> None:
        if self.is_left or future.cancelled():
            return
        begun = self._begun
        assert begun is not None
        try:
            answer, timings_ms, offer = self._direct.small.end(begun, self.visit, self._kept)
            head = self._direct.head_of(self.resolution, answer.media_type, timings_ms)
        # A boundary: what a batch ends with is told by the ordinary way, whatever it is.
        except BaseException as error:  # noqa: BLE001
            self.go_on(error)
            return
        if len(answer.body) < WORTH_BYTES and not answer.headers:
            self.answer(head, answer.body, begun.request.rows)
            if offer is not None:
                offer(request_id_of(self._scope))
            return
        prediction = Prediction(
            answer=answer,
            version=self.resolution.version.number,
            rows=begun.request.rows,
            timings_ms=timings_ms,
            offer=offer,
        )
        self.go_on(prediction)

    def answer(self, head: bytes, body: bytes, rows: int) -> None:
        """Send it: what is the same in the heads of all, and its own body."""
        scope, name = self._scope, self.resolution.model.name
        version = self.resolution.version.number
        self._jointly = None  # which knows this: no circle is left to the collector
        request_id = request_id_of(scope).encode("ascii")
        self.is_answered = True
        with self.visit:
            note_answer(scope, name, version, rows)
            self._ending.answer(_HEAD_OF_ONE % (head, len(body), request_id), body)
            spent_s = time.perf_counter() - self._began
            self._endpoint.note_answered(scope, name, version, spent_s, rows)
            self._direct.note(scope, 200, self._began)

    def go_on(self, outcome: Prediction | BaseException) -> None:
        """Have the ordinary way send that."""
        self._jointly = None
        direct, endpoint = self._direct, self._endpoint
        visit, scope = self.visit, self._scope
        name, version = self.resolution.model.name, self.resolution.version.number
        scope[BEGAN] = began = self._began
        note_answer(scope, name, version, None)

        async def come() -> tuple[Answer, Visit]:
            if isinstance(outcome, BaseException):
                visit.leave()
                raise outcome
            return outcome, visit

        async def rest(scope: Scope, receive: Receive, send: Send) -> None:
            exchange = Exchange(scope, receive, send, model=name, began=began)
            await endpoint.conclude(exchange, come())

        self._ending.go_on(direct.around(rest))
