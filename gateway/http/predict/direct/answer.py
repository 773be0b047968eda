"""A small prediction that was begun without a task, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.admission import Visit
from gateway.capture.kept import Kept
from gateway.catalog import Resolution
from gateway.contract import Form
from gateway.http.access_log import AccessEntry, AccessJournal, note_answer
from gateway.http.boundary import BEGAN
from gateway.http.predict.answering import Answer, Exchange, server_timing
from gateway.http.predict.compression import WORTH_BYTES
from gateway.http.predict.endpoint import PredictEndpoint
from gateway.http.request_identity import request_id_of
from gateway.ports import CallResult
from gateway.prediction import Prediction
from gateway.small_predictions import Begun, Jointly, SmallPredictions

_logger = logging.getLogger(__name__)

_HEAD = b"content-type: %b\r\nx-model-version: %d\r\nserver-timing: %b\r\n%b"
_HEAD_OF_ONE = b"%bcontent-length: %d\r\nx-request-id: %b\r\n"


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


class DirectContext:
    """What the direct answers of a server have in common: how their calls travel, where access
    lines go, what is `around` the ordinary way too, and `head`, lines that all heads have."""

    def __init__(
        self,
        small: SmallPredictions,
        *,
        journal: AccessJournal | None,
        around: Around,
        head: bytes = b"",
    ) -> None:
        self.small = small
        self.around = around
        self._journal = journal
        self._head = head

    def head_of(
        self, resolution: Resolution, media_type: bytes, timings_ms: Mapping[str, float]
    ) -> bytes:
        """The lines of an answer's head that are the same for all who travelled together."""
        number = resolution.version.number
        return _HEAD % (media_type, number, server_timing(timings_ms), self._head)

    def note(self, scope: Scope, status: int | None, began: float) -> None:
        """Have a line in the access log; of one who left, without a status."""
        if self._journal is not None:
            spent_s = time.perf_counter() - began
            self._journal.add(AccessEntry(time.time(), scope, status, spent_s))


class DirectAnswer:
    """A prediction that was begun. It ends with an answer that is written, with an application that
    goes on from there, or with nothing for a caller who has left."""

    __slots__ = (
        "_began", "_begun", "_context", "_ending", "_endpoint", "_jointly", "_kept", "_scope",
        "body", "form", "is_answered", "is_left", "resolution", "visit",
    )  # fmt: skip

    def __init__(
        self,
        context: DirectContext,
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
        self._context = context
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
            begun = self._context.small.begin(self.resolution, self.form, self.body, self.visit)
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
            self._kept.note_joint(jointly.joint, number, len(self.body))

    def end_with(self, jointly: Jointly, number: int, head: bytes, body: bytes) -> None:
        """Send what was made for all together."""
        shadowing = self._context.small.shadowing if self.resolution.shadow else None
        is_offered = shadowing is not None and shadowing.wants(
            self.resolution, len(self.body) + len(body)
        )
        if self._kept is not None:
            assert jointly.result is not None
            self._kept.note_joint_output(jointly.result.output, len(body))
        self._context.small.answered(self.resolution)
        self.answer(head, body, jointly.joint.sizes[number])
        if is_offered:
            self._context.small.offer(jointly, number, len(body))(request_id_of(self._scope))

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
        self._context.note(self._scope, None, self._began)

    def _done(self, future: asyncio.Future[CallResult]) -> None:
        if self.is_left or future.cancelled():
            return
        begun = self._begun
        assert begun is not None
        try:
            answer, timings_ms, offer = self._context.small.end(begun, self.visit, self._kept)
            head = self._context.head_of(self.resolution, answer.media_type, timings_ms)
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
            self._context.note(scope, 200, self._began)

    def go_on(self, outcome: Prediction | BaseException) -> None:
        """Have the ordinary way send that."""
        self._jointly = None
        endpoint = self._endpoint
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

        self._ending.go_on(self._context.around(rest))
