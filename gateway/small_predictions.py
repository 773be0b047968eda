"""Small predictions in two halves, with no task that waits in between: begun, and ended when the
call is back (docs/decisions/0055).

What `PredictionService.predict` does for them, by the same functions. Must not import ray, mlflow
or fastapi.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from gateway.admission import Visit
from gateway.batching.compatibility import is_batched
from gateway.capture.kept import Kept
from gateway.catalog import Resolution
from gateway.contract import Form, Joint, Request, Written, request_of
from gateway.contract.outputs import output_slice
from gateway.deadline import Deadline
from gateway.errors import GatewayError, InvalidInput, no_answer
from gateway.frame_calls import call_of, placed, timings
from gateway.ports import CallQueue, CallResult, Queued
from gateway.shadow.shadowing import Offer, Shadowing
from gateway.version_outcomes import Patience, VersionOutcomes

_logger = logging.getLogger(__name__)

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
        deadline: Deadline,
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
        self.timer = loop.call_later(deadline.left_s(), self._be_late, patience_s)

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


class Jointly:
    """Predictions that were read together and travel so. Its future is done when they can be ended,
    or cancelled: because all callers have left, or because each goes on by itself, which `apart` is
    told of its number."""

    __slots__ = (
        "_apart", "_callers", "bodies", "deadline", "form", "joint", "parsed",
        "patience_s", "queued", "resolution", "result", "started", "timer",
    )  # fmt: skip

    def __init__(
        self,
        resolution: Resolution,
        form: Form,
        bodies: Sequence[bytes],
        joint: Joint,
        deadline: Deadline,
        patience_s: float,
        started: float,
        apart: Callable[[int, Begun], None],
    ) -> None:
        self.resolution = resolution
        self.form = form
        self.bodies = bodies
        self.joint = joint
        self.deadline = deadline
        self.patience_s = patience_s
        self.started = started
        self.parsed = time.perf_counter()
        self.queued: Queued | None = None
        self.result: CallResult | None = None
        self._callers = len(bodies)
        self._apart = apart
        loop = asyncio.get_running_loop()
        self.timer = loop.call_later(deadline.left_s(), self._be_late)

    @property
    def future(self) -> asyncio.Future[CallResult]:
        """Has the answer to the rows of all of them."""
        assert self.queued is not None
        return self.queued.future

    def leave(self) -> None:
        """One of the callers is gone."""
        self._callers -= 1
        if not self._callers and self.queued is not None:
            self.timer.cancel()
            self.queued.leave()

    def release(self) -> None:
        """Let go of the call at once: both refer to each other, and the collector of such cycles
        comes by late."""
        self.queued = None

    def one(self, number: int, queued: Queued) -> Begun:
        """One of them by itself."""
        return Begun(
            self.resolution,
            self.form,
            self.bodies[number],
            self.joint.request(number),
            queued,
            self.deadline,
            self.patience_s,
            self.started,
            self.parsed,
        )

    def each(self) -> list[Begun]:
        """All of them by themselves, with their rows of the answer."""
        loop, each = asyncio.get_running_loop(), []
        for number in range(len(self.bodies)):
            answered = _Answered(loop.create_future())
            answered.future.set_result(self.result_of(number))
            each.append(self.one(number, answered))
        return each

    def result_of(self, number: int) -> CallResult:
        """What one of them has of the answer."""
        assert self.result is not None
        start, stop = self.joint.bounds(number)
        output = output_slice(self.result.output, start, stop)
        return CallResult(output=output, timings_ms=self.result.timings_ms)

    def take_apart(self, calls: Sequence[Queued]) -> None:
        """See `gateway.ports.Apart`."""
        self.timer.cancel()
        for number, queued in enumerate(calls):
            self._apart(number, self.one(number, queued))

    def _be_late(self) -> None:
        if self.queued is not None and not self.queued.future.done():
            self.queued.future.set_exception(no_answer(self.patience_s))
            self.queued.leave()


class _Answered:
    """A call that is answered. A `Queued`."""

    def __init__(self, future: asyncio.Future[CallResult]) -> None:
        self.future = future

    def leave(self) -> None:
        """See `Queued`."""


class SmallPredictions:
    """Has small bodies' calls travel with others by `queue`, as one where they came together.
    `max_rows` is the most rows of one request; without `shadowing` no shadow is asked."""

    def __init__(
        self,
        queue: CallQueue,
        *,
        outcomes: VersionOutcomes,
        patience_s: Patience,
        max_rows: int,
        shadowing: Shadowing | None = None,
    ) -> None:
        self._queue = queue
        self._outcomes = outcomes
        self._patience_s = patience_s
        self._max_rows = max_rows
        self.shadowing = shadowing

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
        queued = self._queue.enqueue(call)
        if queued is None:
            return None
        parsed = time.perf_counter()
        return Begun(resolution, form, body, request, queued, deadline, patience_s, started, parsed)

    def begin_together(
        self,
        resolution: Resolution,
        form: Form,
        bodies: Sequence[bytes],
        visits: Sequence[Visit],
        apart: Callable[[int, Begun], None],
    ) -> Jointly | None:
        """`begin` of several bodies as one call. None where they have to begin one by one:
        something may be wrong with one of them, or more has to be done with each."""
        if form.together is None:
            return None
        started = time.perf_counter()
        joint = form.together.read(resolution.contract, bodies)
        if joint is None or max(joint.sizes) > min(_MOST_ROWS, self._max_rows):
            return None
        try:
            for visit, rows in zip(visits, joint.sizes, strict=True):
                visit.hold_rows(rows)
        except GatewayError:
            return None
        patience_s = self._patience_s(resolution.model)
        deadline = Deadline.after(patience_s)
        frame, size_bytes = joint.frame, sum(map(len, bodies))
        call = call_of(resolution, request_of(frame), frame, deadline, patience_s, size_bytes)
        jointly = Jointly(resolution, form, bodies, joint, deadline, patience_s, started, apart)
        jointly.queued = self._queue.enqueue_together(call, joint.sizes, jointly.take_apart)
        if jointly.queued is None:
            jointly.timer.cancel()
            return None
        return jointly

    def end_together(
        self, jointly: Jointly, callers: int
    ) -> tuple[Sequence[bytes] | None, dict[str, float]]:
        """The bodies of the answers, and where the time went; None where each has to be ended by
        itself. Raises what `PredictionService.predict` raises for all of them, of whom so many are
        still there."""
        jointly.timer.cancel()
        resolution, together = jointly.resolution, jointly.form.together
        assert together is not None
        try:
            result = jointly.result = jointly.future.result()
        except GatewayError as error:
            for _ in range(callers):
                self._outcomes.failed(resolution, error)
            raise
        called = time.perf_counter()
        bodies: Sequence[bytes] | None
        try:
            bodies = together.write(resolution.contract, jointly.joint, result.output)
        # A boundary: the answer to one of them is what nobody has thought of, and found by itself.
        except Exception:
            _logger.exception("%d answers could not be written together", len(jointly.bodies))
            bodies = None
        self._outcomes.was_loaded(resolution)
        return bodies, timings([result], jointly.started, jointly.parsed, called)

    def offer(self, jointly: Jointly, number: int, answer_bytes: int) -> Offer:
        """What a shadow that `wants` it is to be asked of one of those who travelled together."""
        assert self.shadowing is not None
        resolution = jointly.resolution
        return self.shadowing.offer(
            resolution,
            jointly.joint.request(number),
            [jointly.result_of(number)],
            body=jointly.bodies[number],
            form=jointly.form,
            answer_bytes=answer_bytes,
            patience_s=jointly.patience_s,
        )

    def answered(self, resolution: Resolution) -> None:
        """One of those who travelled together was answered well."""
        self._outcomes.answered(resolution)

    def end(
        self, begun: Begun, visit: Visit, kept: Kept | None = None
    ) -> tuple[Written, dict[str, float], Offer | None]:
        """The answer to what was begun, where the time went, and what a shadow is to be asked; the
        model's part is noted in `kept`. Raises what `PredictionService.predict` raises."""
        begun.timer.cancel()
        resolution, request, form = begun.resolution, begun.request, begun.form
        try:
            results = [_result(begun)]
            called = time.perf_counter()
            outputs = placed(request, results)
            answer = form.write(resolution.contract, request, outputs)
            visit.hold_answer(len(answer.body))
        except GatewayError as error:
            self._outcomes.failed(resolution, error)
            raise
        self._outcomes.was_loaded(resolution)
        self._outcomes.answered(resolution)
        if kept is not None:
            kept.stands_alone()
            kept.note_outputs(outputs, len(answer.body))
        offer = (
            None
            if self.shadowing is None
            or not self.shadowing.wants(resolution, len(begun.body) + len(answer.body))
            else self.shadowing.offer(
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
