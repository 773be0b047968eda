"""Small predictions, answered without a task of their own.

A shortcut and nothing more (docs/decisions/0055). What it takes, it answers as `PredictEndpoint`
does, in a part of the time: a request is read in the turn of the event loop in which it came, its
rows travel with those of others, and the answer is one write in the turn in which they are back.
What it doesn't take (anything odd in the head, anything wrong with the body, a version that isn't
warm) goes the ordinary way, which begins anew. An answer that isn't small and good goes it from
there on. Must not import ray or mlflow.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence, Set
from typing import NamedTuple, Protocol
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.admission import Visit
from gateway.catalog import Catalog, Resolution
from gateway.contract import Form, Written
from gateway.errors import GatewayError
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
from gateway.small_predictions import MOST_BYTES, Begun, SmallPredictions

_logger = logging.getLogger(__name__)

_REMEMBERED = 4096
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

_HEAD = b"".join(
    (
        b"content-type: %b\r\n",
        b"x-model-version: %d\r\n",
        b"server-timing: %b\r\n",
        b"%bcontent-length: %d\r\n",
        b"x-request-id: %b\r\n",
    )
)


class Taken(NamedTuple):
    """What a request asks for that is taken, by which path, whom and in which form; and which
    headers it may not have."""

    path: str
    endpoint: PredictEndpoint
    resolution: Resolution
    form: Form
    deciding: Set[bytes]
    most_bytes: int


class Ending(Protocol):
    """How a server has a direct answer."""

    def answer(self, head: bytes, body: bytes) -> None:
        """Send an answer with status 200: the lines of its head, and its body."""

    def go_on(self, app: ASGIApp) -> None:
        """Have an application answer instead. The request's body has been received."""


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

    def begin(self, taken: Taken, scope: Scope, body: bytes) -> DirectAnswer | None:
        """Begin to answer a request whose body is there; None where the ordinary way has to be
        gone."""
        began = time.perf_counter()
        try:
            return self._begun(taken, scope, body, began)
        # A boundary: in the turn of a connection, its server would take an exception for a request
        # that can't be read. The ordinary way has it again, and says what it is.
        except Exception:
            _logger.exception("a prediction could not be begun directly")
            return None

    def note(self, scope: Scope, status: int | None, began: float) -> None:
        """Have a line in the access log; of one who left, without a status."""
        if self._journal is not None:
            spent_s = time.perf_counter() - began
            self._journal.add(AccessEntry(time.time(), scope, status, spent_s))

    def _begun(self, taken: Taken, scope: Scope, body: bytes, began: float) -> DirectAnswer | None:
        endpoint, resolution, form = taken.endpoint, taken.resolution, taken.form
        begun = None
        try:
            if self._access is not None:
                self._access.identify(scope).require_call(resolution.model.name)
            if resolution.canary is not None:
                # Once: the ordinary way, where that is to be gone, takes it as it was drawn.
                resolution = scope[DRAWN] = drawn(resolution, scope["headers"])
                if not self.small.takes(resolution):
                    return None
                form = endpoint.form_of_json(resolution)
            if endpoint.captures(scope, resolution):
                return None
            visit = self._service.arrive(resolution)
        except GatewayError:
            return None
        try:
            visit.hold_bytes(len(body))
            begun = self.small.begin(resolution, form, body, visit)
        finally:
            if begun is None:
                visit.leave()
        if begun is None:
            return None
        return DirectAnswer(self, endpoint, scope, begun, visit, began)

    def _taken(self, target: bytes) -> Taken | None:
        """By a target that is nothing but a path. What is found is kept for as long as the catalog
        is the same."""
        catalog = self._service.current
        if catalog is not self._resolved_in:
            self._resolved_in, self._resolved = catalog, {}
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
        taken = self._resolved[target] = Taken(
            path=path,
            endpoint=endpoint,
            resolution=resolution,
            form=endpoint.form_of_json(resolution),
            deciding=_DECIDING | endpoint.deciding,
            most_bytes=min(MOST_BYTES, endpoint.max_body_bytes),
        )
        return taken


class DirectAnswer:
    """A prediction that was begun. It ends with an answer that is written, with an application that
    goes on from there, or with nothing for a caller who has left."""

    __slots__ = (
        "_began", "_begun", "_direct", "_ending", "_endpoint", "_is_left", "_scope", "_visit",
    )  # fmt: skip

    def __init__(
        self,
        direct: DirectPredictions,
        endpoint: PredictEndpoint,
        scope: Scope,
        begun: Begun,
        visit: Visit,
        began: float,
    ) -> None:
        self._direct = direct
        self._endpoint = endpoint
        self._scope = scope
        self._begun = begun
        self._visit = visit
        self._began = began
        self._is_left = False

    def when_done(self, ending: Ending) -> None:
        """Have it end so."""
        self._ending = ending
        self._begun.future.add_done_callback(self._done)

    def leave(self) -> None:
        """The caller is gone."""
        self._is_left = True
        self._begun.leave()
        self._visit.leave()
        resolution = self._begun.resolution
        self._endpoint.note_left(resolution.model.name)
        note_answer(self._scope, resolution.model.name, resolution.version.number, None)
        self._direct.note(self._scope, None, self._began)

    def _done(self, future: asyncio.Future[CallResult]) -> None:
        if self._is_left or future.cancelled():
            return
        try:
            answer, timings_ms, offer = self._direct.small.end(self._begun, self._visit)
            head = self._head(answer, timings_ms)
        # A boundary: what a batch ends with is told by the ordinary way, whatever it is.
        except BaseException as error:  # noqa: BLE001
            self._go_on(error)
            return
        if len(answer.body) < WORTH_BYTES and not answer.headers:
            self._answer(head, answer.body)
            if offer is not None:
                offer(request_id_of(self._scope))
            return
        prediction = Prediction(
            answer=answer,
            version=self._begun.resolution.version.number,
            rows=self._begun.request.rows,
            timings_ms=timings_ms,
            offer=offer,
        )
        self._go_on(prediction)

    def _head(self, answer: Written, timings_ms: Mapping[str, float]) -> bytes:
        return _HEAD % (
            answer.media_type,
            self._begun.resolution.version.number,
            server_timing(timings_ms),
            self._direct.head,
            len(answer.body),
            request_id_of(self._scope).encode("ascii"),
        )

    def _answer(self, head: bytes, body: bytes) -> None:
        direct, scope, rows = self._direct, self._scope, self._begun.request.rows
        resolution = self._begun.resolution
        name, version = resolution.model.name, resolution.version.number
        with self._visit:
            note_answer(scope, name, version, rows)
            self._ending.answer(head, body)
            spent_s = time.perf_counter() - self._began
            self._endpoint.note_answered(name, version, spent_s, rows)
            direct.note(scope, 200, self._began)

    def _go_on(self, outcome: Prediction | BaseException) -> None:
        direct, endpoint = self._direct, self._endpoint
        visit, scope = self._visit, self._scope
        name, version = self._begun.resolution.model.name, self._begun.resolution.version.number
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
