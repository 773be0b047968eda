"""One prediction from body to body: resolve, parse, call, render.

The transport-free core behind `POST /models/{name}/predict`: knows the catalog, the contract and
the backend's port, not HTTP. Must not import ray, mlflow or fastapi.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Mapping,
)
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from gateway.admission import Admission, Visit
from gateway.availability import Unloadable
from gateway.canary import RawHeaders, Trials
from gateway.capture.kept import Kept
from gateway.catalog import Catalog, Resolution, ServedModel, ShadowTarget
from gateway.contract import TYPED, Contract, Form, Request, Write, Written
from gateway.deadline import Deadline
from gateway.errors import (
    CatalogUnavailable,
    GatewayError,
    InvalidInput,
    Violation,
    no_answer,
)
from gateway.frame_calls import call_of, placed, timings, together
from gateway.parsing.pool import AT_ONCE_BYTES, Parsing
from gateway.ports import (
    CallQueue,
    CallResult,
    CatalogFeed,
    StreamingBackend,
    Submit,
)
from gateway.shadow.answered import Answered
from gateway.shadow.shadowing import Offer, Shadowing
from gateway.shadow.streams import Heard, may_stream
from gateway.small_predictions import SmallPredictions
from gateway.version_outcomes import VersionOutcomes

_STARTUP_RETRY_AFTER_S = 2.0
_T = TypeVar("_T")

# Answers to more rows are rendered in a thread.
_AT_ONCE_ROWS = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A finished prediction: the answer, the version that gave it, and where the time went.

    `timings_ms` maps a step's name to milliseconds, for the `Server-Timing` header. `offer` is what
    a shadow is to be asked: to be made once the answer is sent, with the request's id.
    """

    answer: Written
    version: int
    rows: int
    timings_ms: Mapping[str, float]
    offer: Offer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventStream:
    """An answer that comes piece by piece: each event is JSON. The first one is there already.

    To be closed (`events.aclose()`) when it is sent, or when nobody wants it any more. `events`
    raises the GatewayError that it breaks off with. `offer` is as in `Prediction`.
    """

    events: AsyncGenerator[bytes]
    version: int
    offer: Offer | None = None


class PredictionService:
    """Answers predictions from whatever catalog is current when a request arrives.

    The calls that they take go to `submit`, small ones to `queue` where that takes them
    (`small`), those that stream to `streaming`; without it, and of versions that can't stream, a
    stream is of one event, the whole answer. `default_timeout_s` is a request's deadline where no
    tag says otherwise, `max_timeout_s` the longest that a tag can say, `max_rows` the most rows of
    one request. What comes of canaries is counted in `trials`; without `shadowing` no shadow is
    asked.
    """

    def __init__(
        self,
        *,
        feed: CatalogFeed,
        submit: Submit,
        queue: CallQueue | None = None,
        streaming: StreamingBackend | None = None,
        default_timeout_s: float,
        max_timeout_s: float = 3600.0,
        max_rows: int = 100_000,
        admission: Admission | None = None,
        parsing: Parsing | None = None,
        trials: Trials | None = None,
        shadowing: Shadowing | None = None,
    ) -> None:
        self._feed = feed
        self._submit = submit
        self._streaming = streaming
        self._default_timeout_s = default_timeout_s
        self._max_timeout_s = max_timeout_s
        self._max_rows = max_rows
        self._admission = admission or Admission()
        self._parsing = parsing or Parsing()
        self._shadowing = shadowing
        self._outcomes = VersionOutcomes(trials or Trials(), self._patience_s)
        self.small = (
            None
            if queue is None
            else SmallPredictions(
                queue,
                outcomes=self._outcomes,
                patience_s=self._patience_s,
                max_rows=max_rows,
                shadowing=shadowing,
            )
        )
        self._resolved_in: Catalog | None = None
        self._resolved: dict[tuple[str, str | None], Resolution] = {}

    @property
    def unloadable(self) -> Unloadable:
        """The versions whose last load failed, as far as this process has seen, and why."""
        return self._outcomes.unloadable

    @property
    def current(self) -> Catalog | None:
        """The current catalog; None before the first one."""
        return self._feed.catalog

    def catalog(self) -> Catalog:
        """The same; raises CatalogUnavailable before the first one."""
        catalog = self._feed.catalog
        if catalog is None:
            raise CatalogUnavailable(
                "The gateway has not read the registry yet.", retry_after_s=_STARTUP_RETRY_AFTER_S
            )
        return catalog

    def knows(self, name: str) -> bool:
        """Whether the current catalog has a model of that name."""
        catalog = self._feed.catalog
        return catalog is not None and name in catalog.models

    def resolve(
        self, name: str, selector: str | None, headers: RawHeaders | None = None
    ) -> Resolution:
        """`Catalog.resolve` on the current catalog, with its errors; what it found once is kept
        for as long as the catalog is the same.

        `headers` are those of a request for a prediction: a canary may have it. What only asks
        about a model has none, and is told of the default.
        """
        catalog = self.catalog()
        if catalog is not self._resolved_in:
            self._resolved_in, self._resolved = catalog, {}
        key = (name, selector)
        found = self._resolved.get(key)
        if found is None:
            found = self._resolved[key] = catalog.resolve(name, selector)
        return found if headers is None else drawn(found, headers)

    def arrive(self, resolution: Resolution) -> Visit:
        """See `Admission.arrive`; the error names the model and the version."""
        try:
            return self._admission.arrive(resolution.model.name)
        except GatewayError as error:
            error.model = resolution.model.name
            error.version = resolution.version.number
            raise

    def arrive_unnamed(self) -> Visit:
        """The same for a request whose model its body names, until that is read."""
        return self._admission.arrive("")

    async def predict(
        self,
        resolution: Resolution,
        body: bytes,
        visit: Visit,
        *,
        timeout_s: float | None = None,
        form: Form = TYPED,
        kept: Kept | None = None,
    ) -> Prediction:
        """Answer one request body for a resolved version, in `timeout_s` seconds if that is less
        than what holds for the model; what becomes of it is noted in `kept`.

        What the answer holds stays in `visit`: leave it when the answer is sent. Raises
        MalformedJson, InvalidInput, PayloadTooLarge, Overloaded, GatewayUnavailable,
        DeadlineExceeded, InvalidModelOutput and what `PredictionBackend.call` raises; each names
        the model and the version.
        """
        with self._outcomes.naming(resolution, timeout_s):
            prediction = await self._predict(resolution, body, visit, timeout_s, form, kept)
        self._outcomes.answered(resolution)
        return prediction

    async def stream(
        self,
        resolution: Resolution,
        body: bytes,
        visit: Visit,
        *,
        timeout_s: float | None = None,
        kept: Kept | None = None,
    ) -> EventStream:
        """Answer one request body piece by piece: returns when the first one is there, by the same
        deadline and with the same errors as `predict`. The next ones may each take as long as the
        model's deadline says."""
        version = resolution.version
        if not version.streamable or self._streaming is None:
            whole = await self.predict(resolution, body, visit, timeout_s=timeout_s, kept=kept)
            answer = whole.answer.body
            if version.task is not None and whole.rows == 1:
                answer = answer[1:-1]
            return EventStream(events=_one(answer), version=version.number, offer=whole.offer)
        with self._outcomes.naming(resolution, timeout_s):
            patience_s = self._timeout_s(resolution, timeout_s)
            events = self._events(resolution, body, visit, patience_s, kept)
            try:
                first = await anext(events, None)
            except BaseException:
                await events.aclose()
                raise
        told = self._named(resolution, _put_first(first, events))
        target, shadowing = resolution.shadow, self._shadowing
        if target is None or shadowing is None or not may_stream(target):
            return EventStream(events=told, version=version.number)
        return self._overheard(resolution, target, shadowing, body, told)

    def _overheard(
        self,
        resolution: Resolution,
        target: ShadowTarget,
        shadowing: Shadowing,
        body: bytes,
        events: AsyncGenerator[bytes],
    ) -> EventStream:
        """A stream whose events are kept, for the shadow's to be compared with once it has ended
        well."""
        heard, began = Heard(events), time.perf_counter()

        def offer(request_id: str) -> None:
            size_bytes = len(body) + heard.size_bytes
            if not heard.is_whole or not shadowing.wants(resolution, size_bytes):
                return
            answered = Answered(
                resolution=resolution,
                target=target,
                body=body,
                form=TYPED,
                request=None,
                events=heard.events,
                model_s=time.perf_counter() - began,
                size_bytes=size_bytes,
                patience_s=self._patience_s(resolution.model),
            )
            shadowing.take_in(request_id, answered)

        return EventStream(events=heard.passed_on(), version=resolution.version.number, offer=offer)

    async def _named(
        self, resolution: Resolution, events: AsyncGenerator[bytes]
    ) -> AsyncGenerator[bytes]:
        with self._outcomes.naming(resolution):
            async with aclosing(events):
                async for event in events:
                    yield event
        self._outcomes.answered(resolution)

    async def _events(
        self,
        resolution: Resolution,
        body: bytes,
        visit: Visit,
        timeout_s: float,
        kept: Kept | None,
    ) -> AsyncGenerator[bytes]:
        """What the model gives, each as JSON, within the deadline of each."""
        assert self._streaming is not None
        deadline = Deadline.after(timeout_s)
        request = await within(timeout_s, self._parsed(resolution, body, TYPED))
        if kept is not None:
            kept.note_request(request, len(body))
        visit.hold_rows(request.rows)
        if len(request.frames) != 1 or request.rows != 1:
            raise InvalidInput((Violation(pointer="", message="A stream answers one input."),))
        patience_s = self._patience_s(resolution.model)
        call = call_of(resolution, request, request.frames[0][1], deadline, patience_s, len(body))
        try:
            async with aclosing(self._streaming.stream(call)) as pieces:
                left_s = deadline.left_s()
                while (piece := await within(left_s, anext(pieces, None))) is not None:
                    (value,) = piece.output[1]
                    event = resolution.contract.render_event(value)
                    if kept is not None:
                        kept.note_event(event)
                    yield event
                    left_s = patience_s
        except InvalidInput as refusal:  # by the model's own classes
            raise request.located(refusal) from None

    def _timeout_s(self, resolution: Resolution, asked_s: float | None) -> float:
        patience_s = self._patience_s(resolution.model)
        return patience_s if asked_s is None else min(asked_s, patience_s)

    async def _parsed(self, resolution: Resolution, body: bytes, form: Form) -> Request:
        if len(body) <= AT_ONCE_BYTES:
            return form.read(resolution.contract, body, self._max_rows)
        return await self._parsing.parse(resolution.contract, body, self._max_rows, form.read)

    def _patience_s(self, model: ServedModel) -> float:
        """The deadline of callers who don't ask for an earlier one."""
        usual = model.options.timeout_s or self._default_timeout_s
        return min(usual, self._max_timeout_s)

    async def _predict(
        self,
        resolution: Resolution,
        body: bytes,
        visit: Visit,
        timeout_s: float | None,
        form: Form,
        kept: Kept | None,
    ) -> Prediction:
        started = time.perf_counter()
        patience_s = self._patience_s(resolution.model)
        timeout_s = self._timeout_s(resolution, timeout_s)
        deadline = Deadline.after(timeout_s)
        async with _deadline(timeout_s, "No answer"):
            request = await self._parsed(resolution, body, form)
            parsed = time.perf_counter()
            if kept is not None:
                kept.note_request(request, len(body))
            visit.hold_rows(request.rows)
            try:
                results = await self._submit_all(
                    resolution, request, len(body), deadline, patience_s
                )
            except InvalidInput as refusal:  # by the model's own classes
                raise request.located(refusal) from None
        called = time.perf_counter()
        answer = await _written(resolution.contract, request, results, form.write)
        visit.hold_answer(len(answer.body))
        if kept is not None:
            kept.note_outputs(placed(request, results), len(answer.body))
        return Prediction(
            answer=answer,
            version=resolution.version.number,
            rows=request.rows,
            timings_ms=timings(results, started, parsed, called),
            offer=None
            if self._shadowing is None
            or not self._shadowing.wants(resolution, len(body) + len(answer.body))
            else self._shadowing.offer(
                resolution,
                request,
                results,
                body=body,
                form=form,
                answer_bytes=len(answer.body),
                patience_s=patience_s,
            ),
        )

    async def _submit_all(
        self,
        resolution: Resolution,
        request: Request,
        size_bytes: int,
        deadline: Deadline,
        patience_s: float,
    ) -> list[CallResult]:
        """One call per frame, side by side; an empty request calls nothing."""
        return await together(
            [
                self._submit(call_of(resolution, request, frame, deadline, patience_s, size_bytes))
                for _, frame in request.frames
            ]
        )


def drawn(resolution: Resolution, headers: RawHeaders) -> Resolution:
    """What a request with these headers gets of what was resolved: its canary, if it has one and
    they are drawn."""
    canary = resolution.canary
    return resolution if canary is None or not canary.draw.takes(headers) else canary.resolution


async def within(timeout_s: float, coming: Awaitable[_T]) -> _T:
    """What comes within so many seconds; raises DeadlineExceeded."""
    async with _deadline(timeout_s, "Nothing came"):
        return await coming


@asynccontextmanager
async def _deadline(timeout_s: float, missing: str) -> AsyncGenerator[None]:
    """Ends what is within after so many seconds; raises DeadlineExceeded, which says what is
    missing."""
    try:
        async with asyncio.timeout(timeout_s) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise  # somebody else's: a bug, and no word about the request
        raise no_answer(timeout_s, missing) from None


async def _one(event: bytes) -> AsyncGenerator[bytes]:
    yield event


async def _put_first(first: bytes | None, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with aclosing(rest):
        if first is not None:
            yield first
        async for event in rest:
            yield event


async def _written(
    contract: Contract, request: Request, results: list[CallResult], write: Write
) -> Written:
    outputs = placed(request, results)
    if request.rows <= _AT_ONCE_ROWS:
        return write(contract, request, outputs)
    return await asyncio.to_thread(write, contract, request, outputs)
