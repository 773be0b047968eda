"""What the gateway needs from the outside, as Protocols that `deployments` fulfils.

Owns the seams and the small values that cross them. Must not import ray, mlflow or fastapi.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.catalog import Catalog, ModelVersion, ServedModel
from gateway.contract import Frame, Output
from gateway.deadline import Deadline
from gateway.history import HistoryEntry
from gateway.shadow_figures import ShadowFigures


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryStatus:
    """How the registry has been answering.

    `silent_for_s` is the time since its last good answer in seconds, None before the first one;
    `problem` is one sentence about the last failure, None while all is well. `snapshot_problem`
    says why what it answered is not kept on disk, None while it is.
    """

    silent_for_s: float | None = None
    problem: str | None = None
    snapshot_problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """What one look at the registry changed, each a list of model names."""

    generation: int
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    problem: str | None = None


MODEL_STEP = "model"
"""The step in a call's timings that the model itself took."""

LOAD_STEP = "load"
"""The step in which its version was waited for; there is none in calls that went straight to the
version's process."""


class CatalogFeed(Protocol):
    """Where the current catalog comes from; it is replaced as a whole, by reference."""

    @property
    def catalog(self) -> Catalog | None:
        """The newest catalog, None until the first one is there."""

    @property
    def registry(self) -> RegistryStatus:
        """How the registry has been answering, as far as is known here."""

    async def synchronize(self) -> SyncReport:
        """Look at the registry now; returns once `catalog` shows what was found.

        Raises InternalError where the sync service can't be reached.
        """

    async def history(self, name: str, *, limit: int) -> Sequence[HistoryEntry]:
        """The last changes of a model, the newest first; raises InternalError likewise."""

    async def shadow(self, name: str) -> ShadowFigures | None:
        """How the answers of a model's shadow compare, of all processes; None where nothing was
        compared. Raises InternalError likewise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of one version: rows of equal shape as columns, and inference params.

    `deadline` is the request's; `patience_s` is how many seconds callers have who don't ask for an
    earlier one: a model that takes longer still has hung. `size_bytes` is about how much JSON the
    rows were. Where tracing is on, `origins` are the spans of the requests in the call, and
    `traceparent` names the call's own (W3C Trace Context). One that is `aside` is a shadow's: no
    caller waits for it, and it reaches a process of its own.
    """

    model: ServedModel
    version: ModelVersion
    frame: Frame
    params: Mapping[str, Any]
    deadline: Deadline
    patience_s: float = 3600.0
    size_bytes: int = 0
    origins: tuple[Any, ...] = ()
    traceparent: str | None = None
    aside: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CallResult:
    """A model's answer to a call, and where its time went (name -> milliseconds).

    `begun_at_ns` is when the model's own code began with it, in nanoseconds since the epoch; 0
    where that isn't known.
    """

    output: Output
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    begun_at_ns: int = 0


class PredictionBackend(Protocol):
    """Where versions are loaded and called."""

    async def call(self, call: Call) -> CallResult:
        """Call the version, loading it first where needed.

        Raises ModelFailed, InvalidModelOutput, ModelUnavailable, Overloaded, DeadlineExceeded;
        cancelling it disturbs no other caller.
        """


class StreamingBackend(Protocol):
    """Where versions are asked for an answer piece by piece."""

    def stream(self, call: Call) -> AsyncGenerator[CallResult]:
        """The pieces, each when the model gives it; to close it ends the model's generator.

        Raises what `PredictionBackend.call` raises, before the first piece or after any.
        """


class Queued(Protocol):
    """A call that is on its way, or waits for its turn, with nobody's task waiting for it.

    `future` has its result, or raises what `PredictionBackend.call` raises.
    """

    future: asyncio.Future[CallResult]

    def leave(self) -> None:
        """Nobody wants the answer any more."""


Apart = Callable[[Sequence[Queued]], None]
"""Takes the calls of several callers, who travelled as one, each by itself."""


class CallQueue(Protocol):
    """Where calls travel with others, with no task to wait for the answer."""

    def enqueue(self, call: Call) -> Queued | None:
        """Have a call travel with others; None where it must be submitted."""

    def enqueue_together(self, call: Call, sizes: Sequence[int], apart: Apart) -> Queued | None:
        """The same of the calls of several callers as one, with the rows of each.

        Its result is that to all of their rows. Where that can't be had (the rows of one may be at
        fault, or they don't fit), `apart` gets the calls of each by itself, and the future is
        cancelled.
        """


Submit = Callable[[Call], Coroutine[Any, Any, CallResult]]
"""Where a request's calls go: to a batcher (`MicroBatcher.submit`), or to a backend at once. Raises
what `PredictionBackend.call` raises."""
