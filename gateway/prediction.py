"""One prediction from body to body: resolve, parse, call, render.

The transport-free core behind `POST /models/{name}/predict`: knows the catalog, the contract and
the backend's port, not HTTP. Must not import ray, mlflow or fastapi.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.admission import Admission, Visit
from gateway.availability import Unloadable, VersionKey
from gateway.catalog import Catalog, Resolution, ServedModel
from gateway.contract import TYPED, Contract, Form, Request, Write, Written
from gateway.deadline import Deadline
from gateway.errors import (
    CatalogUnavailable,
    DeadlineExceeded,
    GatewayError,
    InvalidInput,
    ModelUnavailable,
)
from gateway.parsing.pool import AT_ONCE_BYTES, Parsing
from gateway.ports import Call, CallResult, CatalogFeed, Submit

_STARTUP_RETRY_AFTER_S = 2.0
# Answers to more rows are rendered in a thread.
_AT_ONCE_ROWS = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A finished prediction: the answer, the version that gave it, and where the time went.

    `timings_ms` maps a step's name to milliseconds, for the `Server-Timing` header.
    """

    answer: Written
    version: int
    rows: int
    timings_ms: Mapping[str, float]


class PredictionService:
    """Answers predictions from whatever catalog is current when a request arrives.

    The calls that they take go to `submit`. `default_timeout_s` is a request's deadline where no
    tag says otherwise, `max_timeout_s` the longest that a tag can say, `max_rows` the most rows of
    one request.
    """

    def __init__(
        self,
        *,
        feed: CatalogFeed,
        submit: Submit,
        default_timeout_s: float,
        max_timeout_s: float = 3600.0,
        max_rows: int = 100_000,
        admission: Admission | None = None,
        parsing: Parsing | None = None,
    ) -> None:
        self._feed = feed
        self._submit = submit
        self._default_timeout_s = default_timeout_s
        self._max_timeout_s = max_timeout_s
        self._max_rows = max_rows
        self._admission = admission or Admission()
        self._parsing = parsing or Parsing()
        self._unloadable: dict[VersionKey, str] = {}
        self._resolved_in: Catalog | None = None
        self._resolved: dict[tuple[str, str | None], Resolution] = {}

    @property
    def unloadable(self) -> Unloadable:
        """The versions whose last load failed, as far as this process has seen, and why."""
        return self._unloadable

    def catalog(self) -> Catalog:
        """The current catalog; raises CatalogUnavailable before the first one."""
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

    def resolve(self, name: str, selector: str | None) -> Resolution:
        """`Catalog.resolve` on the current catalog, with its errors; what it found once is kept
        for as long as the catalog is the same."""
        catalog = self.catalog()
        if catalog is not self._resolved_in:
            self._resolved_in, self._resolved = catalog, {}
        key = (name, selector)
        found = self._resolved.get(key)
        if found is None:
            found = self._resolved[key] = catalog.resolve(name, selector)
        return found

    def arrive(self, resolution: Resolution) -> Visit:
        """See `Admission.arrive`; the error names the model and the version."""
        try:
            return self._admission.arrive(resolution.model.name)
        except GatewayError as error:
            error.model = resolution.model.name
            error.version = resolution.version.number
            raise

    async def predict(
        self,
        resolution: Resolution,
        body: bytes,
        visit: Visit,
        *,
        timeout_s: float | None = None,
        form: Form = TYPED,
    ) -> Prediction:
        """Answer one request body for a resolved version, in `timeout_s` seconds if that is less
        than what holds for the model.

        What the answer holds stays in `visit`: leave it when the answer is sent. Raises
        MalformedJson, InvalidInput, PayloadTooLarge, Overloaded, GatewayUnavailable,
        DeadlineExceeded, InvalidModelOutput and what `PredictionBackend.call` raises; each names
        the model and the version.
        """
        key = (resolution.model.name, resolution.version.fingerprint)
        try:
            prediction = await self._predict(resolution, body, visit, timeout_s, form)
        except GatewayError as error:
            error.model = resolution.model.name
            error.version = resolution.version.number
            if isinstance(error, ModelUnavailable) and error.load_failed:
                self._unloadable[key] = error.detail
            raise
        self._unloadable.pop(key, None)
        return prediction

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
    ) -> Prediction:
        started = time.perf_counter()
        patience_s = self._patience_s(resolution.model)
        timeout_s = patience_s if timeout_s is None else min(timeout_s, patience_s)
        deadline = Deadline.after(timeout_s)
        try:
            async with asyncio.timeout(timeout_s) as limit:
                if len(body) <= AT_ONCE_BYTES:
                    request = form.read(resolution.contract, body, self._max_rows)
                else:
                    request = await self._parsing.parse(
                        resolution.contract, body, self._max_rows, form.read
                    )
                parsed = time.perf_counter()
                visit.hold_rows(request.rows)
                try:
                    results = await self._submit_all(
                        resolution, request, len(body), deadline, patience_s
                    )
                except InvalidInput as refusal:  # by the model's own classes
                    raise request.located(refusal) from None
        except TimeoutError:
            if not limit.expired():
                raise  # somebody else's: a bug, and no word about the request
            raise DeadlineExceeded(
                f"No answer within the request's deadline of {timeout_s:g} s."
            ) from None
        called = time.perf_counter()
        answer = await _written(resolution.contract, request, results, form.write)
        visit.hold_answer(len(answer.body))
        timings = _timings(results, (called - parsed) * 1e3)
        timings["parse"] = (parsed - started) * 1e3
        timings["render"] = (time.perf_counter() - called) * 1e3
        return Prediction(
            answer=answer,
            version=resolution.version.number,
            rows=request.rows,
            timings_ms=timings,
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
        return await _together(
            [
                self._submit(
                    Call(
                        model=resolution.model,
                        version=resolution.version,
                        frame=frame,
                        params=request.params,
                        deadline=deadline,
                        patience_s=patience_s,
                        size_bytes=size_bytes * frame.rows // request.rows,
                    )
                )
                for _, frame in request.frames
            ]
        )


async def _written(
    contract: Contract, request: Request, results: list[CallResult], write: Write
) -> Written:
    positions = (where for where, _ in request.frames)
    outputs = list(zip(positions, (result.output for result in results), strict=True))
    if request.rows <= _AT_ONCE_ROWS:
        return write(contract, request, outputs)
    return await asyncio.to_thread(write, contract, request, outputs)


def _timings(results: list[CallResult], predict_ms: float) -> dict[str, float]:
    timings = {"predict": predict_ms}
    for result in results:
        for name, spent in result.timings_ms.items():
            timings[name] = timings.get(name, 0.0) + spent
    return timings


async def _together(calls: list[Coroutine[Any, Any, CallResult]]) -> list[CallResult]:
    """The results in order; where a call fails the others are cancelled and its error raised."""
    if len(calls) == 1:
        return [await calls[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except* GatewayError as errors:
        raise _first(errors) from None
    return [task.result() for task in tasks]


def _first(errors: BaseExceptionGroup[GatewayError]) -> GatewayError:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
