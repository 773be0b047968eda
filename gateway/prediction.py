"""One prediction from body to body: resolve, parse, call, render.

The transport-free core behind `POST /models/{name}/predict`: knows the catalog, the contract and
the backend's port, not HTTP. Must not import ray, mlflow or fastapi.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.catalog import Catalog, Resolution
from gateway.contract import Output, Request
from gateway.errors import (
    CatalogUnavailable,
    DeadlineExceeded,
    GatewayError,
    ModelUnavailable,
)
from gateway.ports import Call, CallResult, CatalogFeed, PredictionBackend

_STARTUP_RETRY_AFTER_S = 2.0


VersionKey = tuple[str, str]
"""A model's name and a version's fingerprint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A finished prediction: the JSON body, the version that gave it, and where the time went.

    `timings_ms` maps a step's name to milliseconds, for the `Server-Timing` header.
    """

    body: bytes
    version: int
    rows: int
    timings_ms: Mapping[str, float]


class PredictionService:
    """Answers predictions from whatever catalog is current when a request arrives."""

    def __init__(
        self, *, feed: CatalogFeed, backend: PredictionBackend, default_timeout_s: float
    ) -> None:
        self._feed = feed
        self._backend = backend
        self._default_timeout_s = default_timeout_s
        self._unloadable: set[VersionKey] = set()

    @property
    def unloadable(self) -> Collection[VersionKey]:
        """The versions whose last load failed, as far as this process has seen."""
        return self._unloadable

    def catalog(self) -> Catalog:
        """The current catalog; raises CatalogUnavailable before the first one."""
        catalog = self._feed.catalog
        if catalog is None:
            raise CatalogUnavailable(
                "The gateway has not read the registry yet.", retry_after_s=_STARTUP_RETRY_AFTER_S
            )
        return catalog

    def resolve(self, name: str, selector: str | None) -> Resolution:
        """`Catalog.resolve` on the current catalog, with its errors."""
        return self.catalog().resolve(name, selector)

    async def predict(self, resolution: Resolution, body: bytes) -> Prediction:
        """Answer one request body for a resolved version.

        Raises MalformedJson, InvalidInput, DeadlineExceeded, InvalidModelOutput and what
        `PredictionBackend.predict` raises; each names the model and the version.
        """
        key = (resolution.model.name, resolution.version.fingerprint)
        try:
            prediction = await self._predict(resolution, body)
        except GatewayError as error:
            error.model = resolution.model.name
            error.version = resolution.version.number
            if isinstance(error, ModelUnavailable) and error.load_failed:
                self._unloadable.add(key)
            raise
        self._unloadable.discard(key)
        return prediction

    async def _predict(self, resolution: Resolution, body: bytes) -> Prediction:
        started = time.perf_counter()
        request = resolution.contract.parse(body)
        parsed = time.perf_counter()
        timings, outputs = await self._call_all(resolution, request, len(body))
        called = time.perf_counter()
        rendered = resolution.contract.render(outputs, request.rows)
        timings["parse"] = (parsed - started) * 1e3
        timings["render"] = (time.perf_counter() - called) * 1e3
        return Prediction(
            body=rendered,
            version=resolution.version.number,
            rows=request.rows,
            timings_ms=timings,
        )

    async def _call_all(
        self, resolution: Resolution, request: Request, size_bytes: int
    ) -> tuple[dict[str, float], list[tuple[Sequence[int], Output]]]:
        """One call per frame, side by side; an empty request calls nothing."""
        timeout_s = resolution.model.options.timeout_s or self._default_timeout_s
        started = time.perf_counter()
        try:
            async with asyncio.timeout(timeout_s):
                results = await _together(
                    [
                        self._backend.predict(
                            Call(
                                model=resolution.model,
                                version=resolution.version,
                                frame=frame,
                                params=request.params,
                                timeout_s=timeout_s,
                                size_bytes=size_bytes * frame.rows // request.rows,
                            )
                        )
                        for _, frame in request.frames
                    ]
                )
        except TimeoutError:
            raise DeadlineExceeded(
                f"No answer within the model's deadline of {timeout_s:g} s."
            ) from None
        timings = {"predict": (time.perf_counter() - started) * 1e3}
        for result in results:
            for name, spent in result.timings_ms.items():
                timings[name] = timings.get(name, 0.0) + spent
        positions = (where for where, _ in request.frames)
        return timings, list(zip(positions, (r.output for r in results), strict=True))


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
