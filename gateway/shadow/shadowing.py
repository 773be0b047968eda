"""Shadows: what the default has answered is asked another version, beside the requests.

Owns what waits to be asked: bounded in number and in bytes; what finds no room is dropped, and that
is all that a request ever notices. One call of each model's shadow is on its way at a time, and all
of them together have a bounded share of the event loop. Whatever a shadow does (fail, hang, answer
nonsense) is counted. Asyncio only; must not import ray, mlflow or fastapi.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from dataclasses import dataclass

from gateway.attempt import Attempt
from gateway.catalog import Resolution
from gateway.contract import Form, Request
from gateway.errors import ModelUnavailable
from gateway.frame_calls import placed
from gateway.ports import MODEL_STEP, CallResult, PredictionBackend, StreamingBackend
from gateway.shadow.answered import Answered
from gateway.shadow.asker import Asker, Lane, NotNow, Waiting
from gateway.shadow.budget import Budget
from gateway.shadow.pairs import pair
from gateway.shadow_figures import Failure, ShadowFigures

_logger = logging.getLogger(__name__)

_OLDEST_S = 300.0
_RETRY_S = 1.0
_LONGEST_RETRY_S = 30.0
_MOST_DOUBLINGS = 5
# To be put off a few times is what a start looks like.
_WORTH_TELLING = 4

# While the model has other requests inside, its shadow is at work a quarter of the time.
_BUSY_REQUESTS = 2
_REST = 3.0
_LONGEST_REST_S = 5.0


Offer = Callable[[str], None]
"""Has a shadow asked what a request was, by the id of that: to be called once it is answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowLimits:
    """Bounds on what waits: `requests` of each model, `bytes` of all together, `request_bytes` of
    one request with its answer."""

    requests: int = 256
    bytes: int = 16 * 1024 * 1024
    request_bytes: int = 4 * 1024 * 1024


class Shadowing:
    """Asks the shadows of all models by `backend`, and by `streaming` what was a stream.

    `inside` tells how many requests of a model are inside. `budget` is what all of this may take
    of the event loop; `draw` gives numbers from 0 up to 1.
    """

    def __init__(
        self,
        backend: PredictionBackend,
        *,
        streaming: StreamingBackend | None = None,
        inside: Callable[[str], int] = lambda model: 0,
        limits: ShadowLimits | None = None,
        budget: Budget | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._asker = Asker(backend, streaming)
        self._inside = inside
        self._limits = limits or ShadowLimits()
        self._budget = budget or Budget()
        self._draw = draw
        self._lanes: dict[str, Lane] = {}
        self._held_bytes = 0

    def wants(self, resolution: Resolution, size_bytes: int) -> bool:
        """Whether the shadow is to have a request of about so many bytes; counts one that it is to
        have and for which there is no room."""
        target = resolution.shadow
        if target is None or self._draw() * 100.0 >= target.terms.percent:
            return False
        lane = self._lane(resolution)
        if not self._has_room(lane, size_bytes):
            lane.note("dropped")
            return False
        return True

    def offer(
        self,
        resolution: Resolution,
        request: Request,
        results: Sequence[CallResult],
        *,
        body: bytes,
        form: Form,
        answer_bytes: int,
        patience_s: float,
    ) -> Offer:
        """What the shadow is to be asked of a request that it `wants`, which the default has
        answered."""
        target, size_bytes = resolution.shadow, len(body) + answer_bytes
        assert target is not None
        answered = Answered(
            resolution=resolution,
            target=target,
            body=body,
            form=form,
            request=request,
            outputs=placed(request, results),
            model_s=sum(result.timings_ms.get(MODEL_STEP, 0.0) for result in results) / 1e3,
            size_bytes=size_bytes,
            patience_s=patience_s,
        )
        return lambda request_id: self.take_in(request_id, answered)

    def take_in(self, request_id: str, answered: Answered) -> None:
        """Have the shadow asked what is answered now, when it is its turn."""
        lane = self._lane(answered.resolution)
        if not self._has_room(lane, answered.size_bytes):
            lane.note("dropped")
            return
        self._held_bytes += answered.size_bytes
        lane.waiting.append(
            Waiting(request_id=request_id, answered=answered, since=time.monotonic())
        )
        if lane.task is None:
            # In no caller's context: it belongs to none of them.
            work = self._work_off(answered.resolution.model.name, lane)
            lane.task = asyncio.create_task(work, context=Context())

    def take(self) -> dict[str, ShadowFigures]:
        """What was counted since this was last called, by model."""
        counted: dict[str, ShadowFigures] = {}
        for name, lane in list(self._lanes.items()):
            if lane.figures is not None:
                counted[name], lane.figures = lane.figures, None
            elif lane.task is None and time.monotonic() >= lane.closed_until:
                del self._lanes[name]
        return counted

    async def settle(self) -> None:
        """Wait until nothing waits to be asked."""
        while tasks := [lane.task for lane in self._lanes.values() if lane.task is not None]:
            await asyncio.wait(tasks)

    def _lane(self, resolution: Resolution) -> Lane:
        """The model's lane; another pair of versions begins anew, and what waits of the one before
        isn't asked any more."""
        name, target = resolution.model.name, resolution.shadow
        assert target is not None
        lane = self._lanes.get(name)
        if lane is not None and lane.resolution is resolution:  # as nearly always
            return lane
        now = pair(resolution.version, target.version, target.terms)
        if lane is None or lane.pair != now:
            lane = self._lanes[name] = Lane(pair=now, resolution=resolution)
        lane.resolution = resolution
        return lane

    def _has_room(self, lane: Lane, size_bytes: int) -> bool:
        limits = self._limits
        return (
            len(lane.waiting) < limits.requests
            and size_bytes <= limits.request_bytes
            and self._held_bytes + size_bytes <= limits.bytes
            and time.monotonic() >= lane.closed_until
        )

    async def _work_off(self, model: str, lane: Lane) -> None:
        """Ask until nothing waits, or another pair has the model's lane."""
        try:
            with Attempt(_logger, "the shadow of %s isn't asked what waits", model):
                while lane.waiting and self._lanes.get(model) is lane:
                    await self._work_on(model, lane)
        finally:
            lane.task = None
            for _ in lane.waiting:
                lane.note("dropped")
            self._give_back(lane.waiting)
            lane.waiting.clear()

    async def _work_on(self, model: str, lane: Lane) -> None:
        """Ask what is next, and wait as long as that keeps the model for its callers."""
        began = time.monotonic()
        pause_s = await self._budget.within(self._ask_next(lane))
        await self._budget.pause()
        if self._inside(model) >= _BUSY_REQUESTS:
            rest_s = _REST * (time.monotonic() - began)
            pause_s = max(pause_s, min(_LONGEST_REST_S, rest_s))
        if pause_s:
            await asyncio.sleep(pause_s)

    async def _ask_next(self, lane: Lane) -> float:
        """Ask what is next; for how many seconds to ask nothing then."""
        try:
            self._give_back(await self._asker.ask_next(lane))
        except NotNow as not_now:
            self._give_back(not_now.done)
            return self._put_off(lane, not_now)
        lane.puts_off = 0
        return 0.0

    def _put_off(self, lane: Lane, not_now: NotNow) -> float:
        """The shadow can't be asked: those that wait for too long are counted, and while it is
        known to be of no use nothing more has room."""
        reason = not_now.reason
        patience_s = _RETRY_S * (1 << min(lane.puts_off, _MOST_DOUBLINGS))
        pause_s = min(_LONGEST_RETRY_S, max(reason.retry_after_s or 0.0, patience_s))
        lane.puts_off += 1
        if lane.puts_off >= _WORTH_TELLING:
            lane.counted().failure = Failure(at=time.time(), reason=reason.detail)
        if isinstance(reason, ModelUnavailable) and reason.load_failed:
            lane.closed_until = time.monotonic() + pause_s
            for _ in lane.waiting:
                lane.fail(reason.detail)
            self._give_back(lane.waiting)
            lane.waiting.clear()
            return 0.0
        while lane.waiting and time.monotonic() - lane.waiting[0].since > _OLDEST_S:
            lane.note("dropped")
            self._give_back([lane.waiting.popleft()])
        return pause_s

    def _give_back(self, done: Iterable[Waiting]) -> None:
        self._held_bytes -= sum(each.answered.size_bytes for each in done)
