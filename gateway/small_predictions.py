"""Small predictions in two halves, with no task that waits in between: begun, and ended when the
call is back (docs/decisions/0055).

What `PredictionService.predict` does for them, by the same functions. Must not import ray, mlflow
or fastapi.
"""

from __future__ import annotations

import asyncio
import time

from gateway.admission import Visit
from gateway.batching.compatibility import is_batched
from gateway.catalog import Resolution
from gateway.contract import Form, Request, Written
from gateway.deadline import Deadline
from gateway.errors import GatewayError, InvalidInput, no_answer
from gateway.frame_calls import call_of, placed, timings
from gateway.ports import CallResult, Enqueue, Queued
from gateway.shadow.shadowing import Offer, Shadowing
from gateway.version_outcomes import Patience, VersionOutcomes

MOST_BYTES = 16 * 1024
"""A longer body is not small: it is parsed in the event loop's turn of its connection."""

# As that: they are rendered in the turn in which the call is back.
_MOST_ROWS = 64


class Begun:
    """A prediction whose call is on its way. Its future raises DeadlineExceeded once the model's
    deadline has passed."""

    __slots__ = ("body", "form", "parsed", "queued", "request", "resolution", "started", "timer")

    def __init__(
        self,
        resolution: Resolution,
        form: Form,
        body: bytes,
        request: Request,
        queued: Queued,
        patience_s: float,
        started: float,
        parsed: float,
    ) -> None:
        self.resolution = resolution
        self.form = form
        self.body = body
        self.request = request
        self.queued = queued
        self.started = started
        self.parsed = parsed
        loop = asyncio.get_running_loop()
        self.timer = loop.call_later(patience_s, self._be_late, patience_s)

    @property
    def future(self) -> asyncio.Future[CallResult]:
        """Done when the prediction can be ended."""
        return self.queued.future

    def leave(self) -> None:
        """Nobody wants the answer any more."""
        self.timer.cancel()
        self.queued.leave()

    def _be_late(self, patience_s: float) -> None:
        future = self.queued.future
        if not future.done():
            future.set_exception(no_answer(patience_s))
            self.queued.leave()


class SmallPredictions:
    """Has small bodies' calls travel with others (`enqueue`). `max_rows` is the most rows of one
    request; without `shadowing` no shadow is asked."""

    def __init__(
        self,
        enqueue: Enqueue,
        *,
        outcomes: VersionOutcomes,
        patience_s: Patience,
        max_rows: int,
        shadowing: Shadowing | None = None,
    ) -> None:
        self._enqueue = enqueue
        self._outcomes = outcomes
        self._patience_s = patience_s
        self._max_rows = max_rows
        self._shadowing = shadowing

    def takes(self, resolution: Resolution) -> bool:
        """Whether calls of what was resolved may travel with others."""
        version = resolution.version
        return version.task is None and is_batched(resolution.model, version)

    def begin(self, resolution: Resolution, form: Form, body: bytes, visit: Visit) -> Begun | None:
        """Have the call of a body of what it `takes` on its way. None where only
        `PredictionService.predict` can answer it, which then begins anew, also with what is wrong
        with the body."""
        started = time.perf_counter()
        try:
            request = form.read(resolution.contract, body, self._max_rows)
            if len(request.frames) != 1 or request.rows > _MOST_ROWS:
                return None
            visit.hold_rows(request.rows)
        except GatewayError:
            return None
        patience_s = self._patience_s(resolution.model)
        deadline = Deadline.after(patience_s)
        frame = request.frames[0][1]
        call = call_of(resolution, request, frame, deadline, patience_s, len(body))
        queued = self._enqueue(call)
        if queued is None:
            return None
        parsed = time.perf_counter()
        return Begun(resolution, form, body, request, queued, patience_s, started, parsed)

    def end(self, begun: Begun, visit: Visit) -> tuple[Written, dict[str, float], Offer | None]:
        """The answer to what was begun, where the time went, and what a shadow is to be asked;
        raises what `PredictionService.predict` raises."""
        begun.timer.cancel()
        resolution, request, form = begun.resolution, begun.request, begun.form
        try:
            results = [_result(begun)]
            called = time.perf_counter()
            answer = form.write(resolution.contract, request, placed(request, results))
            visit.hold_answer(len(answer.body))
        except GatewayError as error:
            self._outcomes.failed(resolution, error)
            raise
        self._outcomes.was_loaded(resolution)
        self._outcomes.answered(resolution)
        offer = (
            None
            if self._shadowing is None
            else self._shadowing.offer(
                resolution,
                request,
                results,
                body=begun.body,
                form=form,
                answer_bytes=len(answer.body),
                patience_s=self._patience_s(resolution.model),
            )
        )
        return answer, timings(results, begun.started, begun.parsed, called), offer


def _result(begun: Begun) -> CallResult:
    try:
        return begun.future.result()
    except InvalidInput as refusal:  # by the model's own classes
        raise begun.request.located(refusal) from None
