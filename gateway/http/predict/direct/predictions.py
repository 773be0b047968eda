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
from collections.abc import Sequence
from contextvars import Context
from functools import partial

from starlette.types import Scope

from gateway.errors import GatewayError
from gateway.http.access_control import Access
from gateway.http.access_log import AccessJournal
from gateway.http.predict.compression import WORTH_BYTES
from gateway.http.predict.direct.answer import Around, DirectAnswer, DirectContext
from gateway.http.predict.direct.heads import DirectHeads, Taken
from gateway.http.predict.endpoint import DRAWN
from gateway.http.predict.negotiation import JSON
from gateway.http.predict.routes import PredictionRoutes
from gateway.ports import CallResult
from gateway.prediction import PredictionService, drawn
from gateway.small_predictions import Jointly, SmallPredictions

_logger = logging.getLogger(__name__)

# So many are read at once: who comes next doesn't wait for more of them.
_MOST_AT_ONCE = 64


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
        self.heads = DirectHeads(service, small, routes)
        self._service = service
        self._small = small
        self._context = DirectContext(small, journal=journal, around=around, head=head)
        self._access = access
        self._arrived: list[DirectAnswer] = []

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
                if not self._small.takes(resolution):
                    return None
                if resolution is not taken.resolution:
                    form = taken.canary_form
            kept = endpoint.begin_capture(scope, resolution, taken.selector)
            visit = self._service.arrive(resolution)
        except GatewayError:
            return None
        visit.hold_bytes(len(body))  # of one so small: it always has room
        return DirectAnswer(
            self._context, endpoint, scope, resolution, form, body, visit, kept, began
        )

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
        jointly = self._small.begin_together(
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
            bodies, timings_ms = self._small.end_together(jointly, len(here))
            if bodies is None or max(map(len, bodies)) >= WORTH_BYTES:
                for answer, begun in zip(answers, jointly.each(), strict=True):
                    answer.go_alone(begun)
                return
            head = self._context.head_of(jointly.resolution, JSON, timings_ms)
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
