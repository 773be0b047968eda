"""Micro-batching: concurrent calls of one version with equal params travel as one.

Owns which calls share one, how many calls are on their way at once, and who gets which rows of the
answer. A call that finds a free slot goes at once; else it waits for the next one to come back. So
there is no timer: an idle gateway adds nothing, and under load the cost of a call is shared.

A batch that fails is taken apart until what is at fault is alone. A caller who leaves or times out
disturbs nobody. Asyncio only; must not import ray, mlflow or fastapi.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextvars import Context
from math import inf

from gateway.batching.batches import (
    Batch,
    Crowd,
    Part,
    Waiter,
    call_of_parts,
    callers_of,
    parts_apart,
)
from gateway.batching.compatibility import company, is_batched
from gateway.batching.cost_model import BatchLimits, RowCosts
from gateway.cancellation import is_cancelled
from gateway.contract.outputs import has_rows, split_output
from gateway.errors import (
    GatewayError,
    InvalidInput,
    InvalidModelOutput,
    ModelFailed,
    ModelUnavailable,
)
from gateway.ports import Apart, Call, CallResult, PredictionBackend, Queued

_logger = logging.getLogger(__name__)

_REMEMBERED = 4096

LaneKey = tuple[str, str]
"""A model's name and a version's fingerprint."""


class MicroBatcher:
    """Batches the calls of a backend."""

    def __init__(self, backend: PredictionBackend, limits: BatchLimits | None = None) -> None:
        self._backend = backend
        self._limits = limits or BatchLimits()
        self._lanes: OrderedDict[LaneKey, _Lane] = OrderedDict()

    async def submit(self, call: Call) -> CallResult:
        """The answer to a call, made alone or with others; raises what `PredictionBackend.call`
        raises."""
        if call.frame.whole or not is_batched(call.model, call.version):
            return await self._backend.call(call)
        return await self._lane(call).submit(call)

    def enqueue(self, call: Call) -> Queued | None:
        """See `CallQueue.enqueue`; what must be submitted shares nothing, or nothing yet."""
        if call.frame.whole or not is_batched(call.model, call.version):
            return None
        return self._lane(call).enqueue(call)

    def enqueue_together(self, call: Call, sizes: Sequence[int], apart: Apart) -> Queued | None:
        """See `CallQueue.enqueue_together`."""
        if not is_batched(call.model, call.version):
            return None
        return self._lane(call).enqueue_together(call, sizes, apart)

    def queues(self) -> Iterator[tuple[tuple[str, int], int]]:
        """How many calls of each version (a model's name, a number) wait for their turn."""
        for (name, _), lane in self._lanes.items():
            yield (name, lane.number), lane.waiting

    def _lane(self, call: Call) -> _Lane:
        key = (call.model.name, call.version.fingerprint)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(call.version.number, self._backend, self._limits)
            self._forget_idle_lanes()
        replicas = call.model.options.max_replicas
        at_once = replicas * call.model.concurrency_of(call.version)
        lane.slots = max(self._limits.calls_to(replicas), at_once)
        return lane

    def _forget_idle_lanes(self) -> None:
        """What a lane knows of its version is worth keeping, but not for ever."""
        while len(self._lanes) > _REMEMBERED:
            idle = next((key for key, lane in self._lanes.items() if lane.is_idle), None)
            if idle is None:
                return
            del self._lanes[idle]


class _Lane:
    """The calls of one version: those on their way, and those that wait for a slot.

    `number` is the version's, `slots` bounds the calls on their way. Until the version has answered
    once, and after it could not be reached, nothing is shared: each caller then waits for its start
    by its own deadline.
    """

    def __init__(self, number: int, backend: PredictionBackend, limits: BatchLimits) -> None:
        self.number = number
        self.slots = limits.calls_to(1)
        self._backend = backend
        self._limits = limits
        self._warm = False
        self._shares = True
        self._on_their_way = 0
        self._costs = RowCosts(limits)
        # For which numbers of rows the version has given as many values: one says little about a
        # model that gives the same number always.
        self._seen_rows = 0
        self._is_row_wise = False
        # By what may travel together. The first queue's turn is next; one that isn't emptied goes
        # to the end, and so does a list of which a part was sent: nobody is starved.
        self._waiting: OrderedDict[Hashable, deque[Waiter]] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_idle(self) -> bool:
        return not self._waiting and not self._on_their_way

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return sum(
            each.callers
            for queue in self._waiting.values()
            for each in queue
            if not each.future.done()
        )

    async def submit(self, call: Call) -> CallResult:
        """Answer one call, alone or with others."""
        if not self._warm or not self._shares:
            return await self._submit_alone(call)
        if not self._waiting and self._on_their_way < self.slots and self._fits(call):
            return await self._submit_at_once(call)
        waiter = self._taken_in(Waiter(call))
        try:
            return await waiter.future
        except asyncio.CancelledError:
            waiter.leave()
            raise

    def enqueue(self, call: Call) -> Waiter | None:
        """See `MicroBatcher.enqueue`."""
        return self._taken_in(Waiter(call)) if self._warm and self._shares else None

    def enqueue_together(self, call: Call, sizes: Sequence[int], apart: Apart) -> Waiter | None:
        """See `MicroBatcher.enqueue_together`."""
        if not self._warm or not self._shares:
            return None
        return self._taken_in(Crowd(call, sizes, apart))

    def _taken_in(self, waiter: Waiter) -> Waiter:
        self._waiting.setdefault(company(waiter.call), deque()).append(waiter)
        self._send()
        return waiter

    async def _submit_alone(self, call: Call) -> CallResult:
        result = await self._backend.call(call)
        self._warm = True
        self._look_at(call, result)
        return result

    async def _submit_at_once(self, call: Call) -> CallResult:
        """Without a task of its own: what a lone caller would only pay for."""
        self._on_their_way += 1
        try:
            result = await self._backend.call(call)
            self._look_at(call, result)
            return result
        except ModelUnavailable:
            self._warm = False
            raise
        finally:
            if self._waiting:
                self._end_call(self._limits.turns)
            else:
                self._on_their_way -= 1

    def _fits(self, call: Call) -> bool:
        return (
            call.frame.rows <= self._costs.part_rows and call.size_bytes <= self._limits.max_bytes
        )

    def _look_at(self, call: Call, result: CallResult) -> bool:
        """Learn from an answer; whether it has one value for each row."""
        rows = call.frame.rows
        if not has_rows(result.output, rows):
            self._share_no_more(call, "its answer isn't one for each row")
            return False
        self._costs.learn(call, result)
        if rows != self._seen_rows:
            self._is_row_wise = self._is_row_wise or self._seen_rows > 0
            self._seen_rows = rows
        return True

    def _send(self) -> None:
        """Fill the free slots."""
        while self._waiting and self._on_their_way < self.slots:
            parts = self._next_parts()
            if parts:
                self._on_their_way += 1
                batch = Batch(parts)
                for part in parts:
                    part.waiter.batches.append(batch)
                # In no caller's context: what is bound to one of them (its cancellation by Ray
                # Serve, its trace) must not take hold of the others' rows.
                batch.task = asyncio.create_task(self._deliver(batch), context=Context())
                self._tasks.add(batch.task)
                batch.task.add_done_callback(self._tasks.discard)

    def _next_parts(self) -> list[Part]:
        company, queue = next(iter(self._waiting.items()))
        parts = self._taken_from(queue)
        if queue:
            self._waiting.move_to_end(company)
        else:
            del self._waiting[company]
        return parts

    def _taken_from(self, queue: deque[Waiter]) -> list[Part]:
        """As many rows as fit into one call, at least one. A list that doesn't fit goes in parts,
        and to the end of the queue after each, as do those for whom the call comes too late."""
        size = float(self._limits.max_bytes)
        not_before, most = self._planned(queue)
        rows = 0
        parts: list[Part] = []
        late: list[Waiter] = []
        while queue and (self._shares or not parts):
            waiter = queue.popleft()
            if waiter.future.done():
                continue
            if waiter.call.deadline.at_s < not_before:
                late.append(waiter)
                continue
            fitting = min(waiter.rows_left, self._costs.part_rows, waiter.rows_in(size))
            if parts:
                fitting = min(fitting, most - rows)
            if waiter.callers > 1 and (fitting < waiter.rows_left or not self._shares):
                queue.extendleft(reversed(waiter.apart()))
                continue
            if parts and fitting <= 0:
                queue.appendleft(waiter)
                break
            part = waiter.take(max(1, fitting))
            parts.append(part)
            rows += part.frame.rows
            size -= part.frame.rows * waiter.bytes_per_row
            if waiter.rows_left:
                queue.append(waiter)
                break
        queue.extend(late)
        return parts

    def _planned(self, queue: deque[Waiter]) -> tuple[float, int]:
        """The earliest deadline that the next call of the queue can meet, and its most rows."""
        now_s, most = time.monotonic(), self._costs.shared_rows
        if self._costs.time_s(most) <= min(each.call.deadline.at_s for each in queue) - now_s:
            return -inf, most
        wanted = [waiter for waiter in queue if not waiter.future.done()]
        lefts_s = [waiter.call.deadline.at_s - now_s for waiter in wanted]
        if not wanted:
            return -inf, most
        needed_s, most = self._costs.plan(lefts_s, min(most, sum(w.rows_left for w in wanted)))
        return now_s + needed_s, most

    async def _deliver(self, batch: Batch) -> None:
        batch.has_begun = True
        try:
            await self._answer(batch.parts)
        except GatewayError as error:
            batch.fail(error)
        # A boundary: whatever goes wrong here, none of the callers may wait for ever.
        except BaseException as error:
            batch.fail(error)
            if is_cancelled() or not isinstance(error, Exception):
                raise
            _logger.exception("a batch failed")
        finally:
            had_company = callers_of(batch.parts) > 1
            batch.release()
            self._end_call(self._limits.turns if had_company else 0)

    def _end_call(self, turns: int) -> None:
        """Free the slot, at the latest after so many turns of the event loop."""
        queued = (each.callers for queue in self._waiting.values() for each in queue)
        if turns and sum(queued) < self._limits.few_callers:
            loop = asyncio.get_running_loop()
            loop.call_soon(self._end_call, turns - 1, context=Context())
            return
        self._on_their_way -= 1
        self._send()

    async def _answer(self, parts: list[Part]) -> None:
        """Call the parts as one; where that fails for the model's sake, or for a reason that nobody
        knows, call them apart."""
        parts = [part for part in parts if part.is_wanted]
        if not parts:
            return
        started = time.monotonic()
        try:
            call = call_of_parts(parts)
            result = await self._backend.call(call)
        except (ModelFailed, InvalidModelOutput, InvalidInput) as error:
            await self._answer_apart(parts, error)
            return
        except GatewayError as error:
            if isinstance(error, ModelUnavailable):
                self._warm = False
            raise
        except GeneratorExit:
            raise  # this coroutine is being closed: nothing can be awaited in it
        # A boundary: whatever it is that nobody has thought of, one caller's rows may be the cause.
        except BaseException as error:
            if is_cancelled():
                self._costs.learn_of_deserted(call, (time.monotonic() - started) * 1e3)
                raise
            _logger.exception("a batch failed, of %d callers", callers_of(parts))
            await self._answer_apart(parts, error)
            return
        await self._deal_out(parts, call, result)

    async def _deal_out(self, parts: list[Part], call: Call, result: CallResult) -> None:
        """Give each part its rows of the answer, where it can be told which they are."""
        knows = self._is_row_wise or call.frame.rows != self._seen_rows
        fits = self._look_at(call, result)
        callers = callers_of(parts)
        if callers == 1 and parts[0].is_all:
            parts[0].receive(result)
        elif not fits:
            await self._answer_whole(parts_apart(parts))
        elif callers > 1 and not knows:
            await self._answer_each([[part] for part in parts_apart(parts)])
        else:
            outputs = split_output(result.output, [part.frame.rows for part in parts])
            for part, output in zip(parts, outputs, strict=True):
                part.receive(CallResult(output=output, timings_ms=result.timings_ms))

    async def _answer_apart(self, parts: list[Part], error: BaseException) -> None:
        """Halve what failed until what is at fault is alone; if nothing is, the company was."""
        parts = parts_apart(parts)
        if len(parts) == 1:
            parts[0].fail(error)
            return
        middle = len(parts) // 2
        await self._answer_each([parts[:middle], parts[middle:]])
        if all(part.is_answered for part in parts):
            reason = "rows that it answers apart fail together"
            self._share_no_more(parts[0].waiter.call, reason)

    async def _answer_each(self, groups: Iterable[list[Part]]) -> None:
        """Call the groups one after another. What keeps one from being answered (its deadline, a
        model that was away for a moment) is told to that one alone; only a version that can't be
        loaded is the same for all."""
        for parts in groups:
            try:
                await self._answer(parts)
            except GatewayError as error:
                if isinstance(error, ModelUnavailable) and error.load_failed:
                    raise
                for part in parts:
                    part.waiter.fail(error)

    async def _answer_whole(self, parts: Sequence[Part]) -> None:
        """After an answer that isn't one for each row: that to a list in parts can't be one."""
        for part in parts:
            if not part.is_all:
                part.waiter.fail(InvalidModelOutput("The model's answer isn't one for each row."))
        await self._answer_each([[part] for part in parts])

    def _share_no_more(self, call: Call, reason: str) -> None:
        if not self._shares:
            return
        self._shares = False
        _logger.warning(
            "%s version %s is not batched any more: %s",
            call.model.name,
            call.version.number,
            reason,
        )
