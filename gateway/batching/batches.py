"""Who waits for rows of a batch, and the batch: callers, crowds of them, parts, calls of several.

A caller's rows go in one call with others', or in several parts. A crowd is callers who came
together and travel so, until something is the matter with one of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import attrgetter

from gateway.contract import Frame, Output
from gateway.contract.hinted import further_down
from gateway.contract.outputs import bounds_of, joined_output
from gateway.errors import InvalidInput, InvalidModelOutput
from gateway.ports import Apart, Call, CallResult

_at_s = attrgetter("at_s")


class Waiter:
    """One caller: its rows, how many of them are sent, and what has come back. A `Queued`."""

    __slots__ = ("answers", "batches", "call", "callers", "future", "sent", "timings_ms")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.callers = 1
        self.future: asyncio.Future[CallResult] = asyncio.get_running_loop().create_future()
        self.sent = 0
        self.answers: dict[int, Output] = {}
        self.batches: list[Batch] = []
        self.timings_ms: dict[str, float] = {}

    @property
    def rows_left(self) -> int:
        """How many rows are still to be sent."""
        return self.call.frame.rows - self.sent

    @property
    def bytes_per_row(self) -> float:
        """What a row took as it was received."""
        return self.call.size_bytes / max(1, self.call.frame.rows)

    def rows_in(self, size_bytes: float) -> int:
        """How many rows so many bytes hold."""
        each = self.bytes_per_row
        return int(max(0.0, size_bytes) / each) if each else self.rows_left

    def take(self, rows: int) -> Part:
        """The next rows, to be sent."""
        start, self.sent = self.sent, self.sent + rows
        return Part(self, start, self.call.frame.slice(start, start + rows))

    def fail(self, error: BaseException) -> None:
        """Tell the caller, unless he has been told or has left."""
        if not self.future.done():
            self.future.set_exception(error)

    def receive(self, start: int, result: CallResult) -> None:
        """Take the answer to a part, the rows from `start`; the last one completes the call."""
        if self.future.done():
            return
        self.answers[start] = result.output
        for step, spent in result.timings_ms.items():
            self.timings_ms[step] = self.timings_ms.get(step, 0.0) + spent
        if self.rows_left or len(self.answers) < len(self.batches):
            return
        joined = joined_output([self.answers[start] for start in sorted(self.answers)])
        if joined is None:
            self.fail(InvalidModelOutput("The model answered parts of a list in different forms."))
        else:
            self.future.set_result(CallResult(output=joined, timings_ms=self.timings_ms))

    def leave(self) -> None:
        """The caller is gone: a call that nobody waits for any more is cancelled."""
        self.future.cancel()
        for batch in self.batches:
            batch.cancel_if_deserted()

    def apart(self) -> list[Waiter]:
        """Its callers, each for itself."""
        return [self]


class Crowd(Waiter):
    """Several callers who came together. They go in one part, or each for itself."""

    __slots__ = ("_sizes", "_told")

    def __init__(self, call: Call, sizes: Sequence[int], told: Apart) -> None:
        super().__init__(call)
        self.callers = len(sizes)
        self._sizes = sizes
        self._told = told

    def apart(self) -> list[Waiter]:
        """See `Waiter.apart`."""
        call, each_bytes = self.call, self.bytes_per_row
        each: list[Waiter] = []
        for start, stop in bounds_of(self._sizes):
            frame, size = call.frame.slice(start, stop), int(each_bytes * (stop - start))
            each.append(Waiter(replace(call, frame=frame, size_bytes=size)))
        self.future.cancel()
        self._told(each)
        return each


class Part:
    """Rows of one caller, from `start`, in a batch."""

    __slots__ = ("frame", "is_all", "is_answered", "start", "waiter")

    def __init__(self, waiter: Waiter, start: int, frame: Frame) -> None:
        self.waiter = waiter
        self.start = start
        self.frame = frame
        self.is_all = frame.rows == waiter.call.frame.rows
        self.is_answered = False

    @property
    def is_wanted(self) -> bool:
        """Whether somebody still waits for these rows."""
        return not self.waiter.future.done()

    def apart(self) -> list[Part]:
        """Each caller's rows by themselves, on the way that all of them are on; as they are where
        all have been told or have left, since who is told has it for good."""
        if self.waiter.callers == 1 or not self.is_wanted:
            return [self]
        (batch,) = self.waiter.batches
        parts = []
        for waiter in self.waiter.apart():
            waiter.batches.append(batch)
            parts.append(waiter.take(waiter.rows_left))
        batch.parts = [*(part for part in batch.parts if part is not self), *parts]
        return parts

    def fail(self, error: BaseException) -> None:
        """Take the failure of these rows, told of the caller's whole list."""
        if isinstance(error, InvalidInput):
            error = further_down(error, self.start)
        self.waiter.fail(error)

    def receive(self, result: CallResult) -> None:
        """Take the answer to these rows."""
        if not self.is_all:
            self.waiter.receive(self.start, result)
        elif self.is_wanted:
            self.waiter.future.set_result(result)
        self.is_answered = True


class Batch:
    """Rows of several callers on their way."""

    def __init__(self, parts: list[Part]) -> None:
        self.parts = parts
        self.task: asyncio.Task[None] | None = None
        self.has_begun = False

    def fail(self, error: BaseException) -> None:
        """Tell all of them."""
        for part in self.parts:
            part.waiter.fail(error)

    def cancel_if_deserted(self) -> None:
        """A task that is cancelled before its first step takes none, and would not free its slot;
        one that has not begun finds that nobody wants it."""
        is_wanted = any(part.is_wanted for part in self.parts)
        if self.task is not None and self.has_begun and not is_wanted:
            self.task.cancel()

    def release(self) -> None:
        """Let go of the rows at once: callers and batches refer to each other, and the collector
        of such cycles may come by late."""
        self.parts = []
        self.task = None


def callers_of(parts: Iterable[Part]) -> int:
    """How many callers the parts are of."""
    return sum(part.waiter.callers for part in parts)


def parts_apart(parts: Iterable[Part]) -> list[Part]:
    """The parts of each caller by himself."""
    return [each for part in parts for each in part.apart()]


def call_of_parts(parts: Sequence[Part]) -> Call:
    """One call with the rows of all parts; it may take as long as the most patient caller."""
    first = parts[0].waiter.call
    origins = first.origins and tuple(
        origin for part in parts for origin in part.waiter.call.origins
    )
    return replace(
        first,
        origins=origins,
        frame=Frame.concat([part.frame for part in parts]),
        deadline=max((part.waiter.call.deadline for part in parts), key=_at_s),
    )
