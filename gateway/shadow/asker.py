"""One round: a few requests are asked the shadow in one call, and their answers compared.

Owns which requests share a call, what becomes of each, and where it is counted. Must not import
ray, mlflow or fastapi.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace

import orjson

from gateway.attempt import Attempt
from gateway.batching.compatibility import company, is_batched
from gateway.catalog import Resolution
from gateway.contract import Frame, Outputs, Request
from gateway.contract.outputs import has_rows, row_bytes, row_count, split_output
from gateway.deadline import Deadline
from gateway.errors import DeadlineExceeded, GatewayError, ModelUnavailable, Overloaded
from gateway.ports import MODEL_STEP, Call, CallResult, PredictionBackend, StreamingBackend
from gateway.shadow.answered import Answered, Columns, columns_of, inputs_of, row_of
from gateway.shadow.comparison import Compared, compare
from gateway.shadow.streams import MOST_EVENT_BYTES
from gateway.shadow_figures import Disagreement, Failure, Outcome, ShadowFigures, ShadowPair

_logger = logging.getLogger(__name__)

_ROWS_TOGETHER = 64
_BYTES_TOGETHER = 256 * 1024
# Larger ones are read and compared in a thread.
_AT_ONCE_BYTES = 256 * 1024
# A few tenths of a millisecond, in which no request gets on.
_COMPARED_AT_ONCE = 4
_ROWS_SHOWN = 3
_EVENTS = "events"
_UNKNOWN = "It can't be asked, or its answer can't be compared; see the gateway's log."


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A request that waits to be asked, since `since` (of the monotonic clock)."""

    request_id: str
    answered: Answered
    since: float


@dataclass(slots=True, kw_only=True, eq=False)
class Lane:
    """What waits for the shadow of one model, and what was counted of it since somebody asked.
    `resolution` is what requests were last resolved to.

    `task` asks while something waits; until `closed_until` (of the monotonic clock) nothing new
    has room. `puts_off` is how often in a row the shadow could not be asked.
    """

    pair: ShadowPair
    resolution: Resolution
    waiting: deque[Waiting] = field(default_factory=deque)
    figures: ShadowFigures | None = None
    is_row_wise: bool = True
    closed_until: float = 0.0
    puts_off: int = 0
    task: asyncio.Task[None] | None = None

    def counted(self) -> ShadowFigures:
        """What to count in."""
        if self.figures is None:
            self.figures = ShadowFigures(pair=self.pair, since=time.time())
        return self.figures

    def note(self, outcome: Outcome) -> None:
        """Count what became of one request."""
        self.counted().note(outcome, time.time())

    def fail(self, reason: str) -> None:
        """Count one that failed."""
        self.note("failed")
        self.counted().failure = Failure(at=time.time(), reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A request as the shadow reads it."""

    waiting: Waiting
    request: Request

    @property
    def frame(self) -> Frame:
        """All rows, where they are in one frame."""
        return self.request.frames[0][1]

    def call(self, frame: Frame) -> Call:
        """The call with those rows."""
        answered = self.waiting.answered
        return Call(
            model=answered.resolution.model,
            version=answered.target.version,
            frame=frame,
            params=self.request.params,
            deadline=Deadline.after(answered.patience_s),
            patience_s=answered.patience_s,
            size_bytes=len(answered.body) * frame.rows // max(1, self.request.rows),
            aside=True,
        )


@contextmanager
def _attempt(message: str, lane: Lane) -> Iterator[None]:
    """Whatever a shadow does is counted, and reaches nobody; but for what says to ask it later."""
    later = (ModelUnavailable, Overloaded)
    with Attempt(_logger, message, level=logging.WARNING, passes=later) as attempt:
        yield
    if attempt.has_failed:
        lane.fail(_UNKNOWN)


class Asker:
    """Asks shadows by a backend, and counts."""

    def __init__(self, backend: PredictionBackend, streaming: StreamingBackend | None) -> None:
        self._backend = backend
        self._streaming = streaming

    async def ask_next(self, lane: Lane) -> list[Waiting]:
        """Ask what waits longest, with others that may share its call; those that are done with.

        Raises ModelUnavailable and Overloaded where the shadow can't be asked now: what was taken
        waits again then, but for those that the error's `done` has.
        """
        taken = lane.waiting.popleft()
        first = await self._read(lane, taken)
        if first is None:
            return [taken]
        done: list[Waiting] = []
        batch = deque([first])
        try:
            await self._join(lane, batch, done)
            await self._ask_all(lane, batch, done)
        except (ModelUnavailable, Overloaded) as error:
            lane.waiting.extendleft(asked.waiting for asked in reversed(batch))
            raise NotNow(error, done) from error
        return done

    async def _read(self, lane: Lane, waiting: Waiting) -> _Asked | None:
        """The request by the shadow's own contract; None where that can't read it."""
        answered = waiting.answered
        contract = answered.target.contract
        if answered.request is not None and contract is answered.resolution.contract:
            return _Asked(waiting=waiting, request=answered.request)
        read, body = answered.form.read, answered.body
        try:
            if len(body) <= _AT_ONCE_BYTES:
                request = read(contract, body, None)
            else:
                request = await asyncio.to_thread(read, contract, body, None)
        except GatewayError as error:
            lane.fail(f"It doesn't take the request: {error.detail}")
            return None
        return _Asked(waiting=waiting, request=request)

    async def _join(self, lane: Lane, batch: deque[_Asked], done: list[Waiting]) -> None:
        """Have those that wait next share the call, as far as they may and fit."""
        first = batch[0]
        if not _may_share(lane, first):
            return
        key = company(first.call(first.frame))
        rows, size = first.request.rows, first.waiting.answered.size_bytes
        while lane.waiting and rows < _ROWS_TOGETHER:
            size += lane.waiting[0].answered.size_bytes
            if size > _BYTES_TOGETHER:
                return
            taken = lane.waiting.popleft()
            asked = await self._read(lane, taken)
            if asked is None:
                done.append(taken)
                continue
            if not _may_share(lane, asked) or company(asked.call(asked.frame)) != key:
                lane.waiting.appendleft(taken)
                return
            batch.append(asked)
            rows += asked.request.rows

    async def _ask_all(self, lane: Lane, batch: deque[_Asked], done: list[Waiting]) -> None:
        """Ask them together; where that fails for a reason that may be one's alone, one by one."""
        if len(batch) > 1 and await self._ask_together(lane, batch):
            done += [asked.waiting for asked in batch]
            return
        while batch:
            await self._ask_one(lane, batch[0])
            done.append(batch.popleft().waiting)

    async def _ask_together(self, lane: Lane, batch: Sequence[_Asked]) -> bool:
        """Whether all of them have what became of them."""
        sizes = [asked.request.rows for asked in batch]
        call = replace(
            batch[0].call(batch[0].frame),
            frame=Frame.concat([asked.frame for asked in batch]),
            size_bytes=sum(len(asked.waiting.answered.body) for asked in batch),
        )
        try:
            result = await self._called(call)
        except (DeadlineExceeded, TimeoutError):
            for _ in batch:
                lane.note("late")
            return True
        except (ModelUnavailable, Overloaded):
            raise
        # A boundary: whatever it is, one of them may be the cause.
        except Exception:  # noqa: BLE001
            return False
        if not has_rows(result.output, sum(sizes)):
            lane.is_row_wise = False
            return False
        spent_s = _model_s(result)
        answers = zip(batch, split_output(result.output, sizes), strict=True)
        for number, (asked, output) in enumerate(answers):
            if number % _COMPARED_AT_ONCE == 0:  # requests come first
                await asyncio.sleep(0)
            await self._compare(lane, asked, ((asked.request.frames[0][0], output),), spent_s)
        return True

    async def _ask_one(self, lane: Lane, asked: _Asked) -> None:
        """Ask one request, and count what becomes of it: whatever that is, it reaches nobody."""
        with _attempt("a shadow can't be asked", lane):
            await self._ask_and_count(lane, asked)

    async def _ask_and_count(self, lane: Lane, asked: _Asked) -> None:
        try:
            async with asyncio.timeout(asked.waiting.answered.patience_s):
                if asked.waiting.answered.events is not None:
                    await self._ask_for_events(lane, asked)
                    return
                results = [await self._called(asked.call(f)) for _, f in asked.request.frames]
        except (DeadlineExceeded, TimeoutError):
            lane.note("late")
        except (ModelUnavailable, Overloaded):
            raise
        except GatewayError as error:
            lane.fail(error.detail)
        else:
            places = (places for places, _ in asked.request.frames)
            outputs = tuple(zip(places, (result.output for result in results), strict=True))
            await self._compare(lane, asked, outputs, sum(map(_model_s, results)))

    async def _called(self, call: Call) -> CallResult:
        async with asyncio.timeout(call.deadline.left_s()):
            return await self._backend.call(call)

    async def _ask_for_events(self, lane: Lane, asked: _Asked) -> None:
        """Ask for a stream, whose events are compared as one value."""
        assert self._streaming is not None
        answered = asked.waiting.answered
        events, size_bytes, spent_s = [], 0, 0.0
        pieces = self._streaming.stream(asked.call(asked.frame))
        async with aclosing(pieces):
            async for piece in pieces:
                (value,) = piece.output[1]
                event = answered.target.contract.render_event(value)
                size_bytes += len(event)
                if size_bytes > MOST_EVENT_BYTES:
                    lane.fail("Its stream is longer than what is compared.")
                    return
                events.append(orjson.loads(event))
                spent_s += _model_s(piece)
        before = [orjson.loads(event) for event in answered.events or ()]
        default, shadow = {_EVENTS: [before]}, {_EVENTS: [events]}
        compared = compare(default, shadow, answered.target.terms.tolerance)
        self._count(lane, asked, compared, default, shadow, spent_s)

    async def _compare(self, lane: Lane, asked: _Asked, outputs: Outputs, spent_s: float) -> None:
        """Count how it compares: an answer may be of any form, and too deep to be looked at."""
        with _attempt("a shadow's answer can't be compared", lane):
            await self._compare_and_count(lane, asked, outputs, spent_s)

    async def _compare_and_count(
        self, lane: Lane, asked: _Asked, outputs: Outputs, spent_s: float
    ) -> None:
        answered = asked.waiting.answered
        try:
            if answered.size_bytes + _size_of(outputs) <= _AT_ONCE_BYTES:
                told = _compared(asked, outputs)
            else:
                told = await asyncio.to_thread(_compared, asked, outputs)
        except GatewayError as error:
            lane.fail(error.detail)
        else:
            self._count(lane, asked, *told, spent_s)

    def _count(
        self,
        lane: Lane,
        asked: _Asked,
        compared: Compared,
        default: Columns,
        shadow: Columns,
        spent_s: float,
    ) -> None:
        figures, different = lane.counted(), compared.different
        lane.note("different" if different else "equal")
        figures.default_s.observe(asked.waiting.answered.model_s)
        figures.shadow_s.observe(spent_s)
        for column in compared.columns:
            counts = figures.column(column.name)
            if counts is not None:
                counts.rows += column.rows
                counts.equal += column.rows - len(column.different)
                counts.differences.observe_all(column.differences)
        for row in different[:_ROWS_SHOWN]:
            figures.keep(_disagreement(asked, row, compared, default, shadow))


class NotNow(Exception):
    """A shadow can't be asked now, for that `reason`; `done` are those that are done with."""

    def __init__(self, reason: ModelUnavailable | Overloaded, done: list[Waiting]) -> None:
        super().__init__(reason.detail)
        self.reason = reason
        self.done = done


def _may_share(lane: Lane, asked: _Asked) -> bool:
    """Whether the request may be in a call with others."""
    answered, frames = asked.waiting.answered, asked.request.frames
    return (
        lane.is_row_wise
        and answered.events is None
        and len(frames) == 1
        and not frames[0][1].whole
        and is_batched(answered.resolution.model, answered.target.version)
    )


def _size_of(outputs: Outputs) -> float:
    """About the bytes of a shadow's answer, which may be of any length."""
    return sum(row_bytes(output) * (row_count(output) or _AT_ONCE_BYTES) for _, output in outputs)


def _compared(asked: _Asked, outputs: Outputs) -> tuple[Compared, Columns, Columns]:
    """Both answers, and how they compare; raises InvalidModelOutput."""
    answered = asked.waiting.answered
    before = answered.request or asked.request
    default = columns_of(answered.resolution.contract, answered.outputs, before.rows)
    shadow = columns_of(answered.target.contract, outputs, asked.request.rows)
    return compare(default, shadow, answered.target.terms.tolerance), default, shadow


def _disagreement(
    asked: _Asked, row: int, compared: Compared, default: Columns, shadow: Columns
) -> Disagreement:
    terms = asked.waiting.answered.target.terms
    return Disagreement(
        at=time.time(),
        request_id=asked.waiting.request_id,
        row=row,
        columns=tuple(each.name for each in compared.columns if row in each.different),
        default=row_of(default, row, terms.left_out),
        shadow=row_of(shadow, row, terms.left_out),
        inputs=inputs_of(asked.request, row, terms.left_out) if terms.keeps_inputs else None,
    )


def _model_s(result: CallResult) -> float:
    return result.timings_ms.get(MODEL_STEP, 0.0) / 1e3
