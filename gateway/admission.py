"""Who may wait: bounds on the work that is inside the gateway at once, per model and in all.

Owns the count of requests, rows and bytes, whatever they wait for: the rest of a body, a call that
is under way, their turn, a model that is starting. Past a bound a request is refused at once. Also
knows which models are in use, because it sees their requests come and go.

The counts are of one process and one event loop. Must not import ray, mlflow or fastapi.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

from gateway.errors import Overloaded

_RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """Bounds on what one process holds at once.

    `model_requests` and `model_rows` are of each model, `rows` and `body_bytes` of all together.
    What comes while nothing else of the kind is there is always let in, so that no bound refuses a
    request for its own size.
    """

    model_requests: int = 1024
    model_rows: int = 200_000
    rows: int = 800_000
    body_bytes: int = 512 * 1024 * 1024


@dataclass(slots=True)
class _Load:
    """What is inside of one model."""

    requests: int = 0
    rows: int = 0


class Admission:
    """Lets requests in, or raises Overloaded."""

    def __init__(self, limits: AdmissionLimits | None = None) -> None:
        self.limits = limits or AdmissionLimits()
        self.loads: dict[str, _Load] = {}
        self.rows = 0
        self.body_bytes = 0
        self._used: set[str] = set()

    def arrive(self, model: str) -> Visit:
        """A request for `model` has come: to be used as a context around all that is done for it.

        Raises Overloaded where the model is full already, before anything of the body is read.
        """
        load = self.loads.get(model)
        if load is not None and (
            load.requests >= self.limits.model_requests or load.rows >= self.limits.model_rows
        ):
            raise _model_is_full()
        return Visit(self, model)

    def take_used(self) -> list[str]:
        """The models that had work inside at any time since this was last asked."""
        used = self._used | self.loads.keys()
        self._used = set()
        return sorted(used)

    def release(self, visit: Visit) -> None:
        """Give back all that the visit held."""
        self.body_bytes -= visit.body_bytes
        self.rows -= visit.rows
        load = visit.load
        if load is not None:
            load.rows -= visit.rows
            load.requests -= 1
            if not load.requests:
                del self.loads[visit.model]
                self._used.add(visit.model)


class Visit:
    """One request that is inside, and what it holds; leaving the block gives all of it back."""

    __slots__ = ("_admission", "body_bytes", "load", "model", "rows")

    def __init__(self, admission: Admission, model: str) -> None:
        self._admission = admission
        self.model = model
        self.load: _Load | None = None
        self.rows = 0
        self.body_bytes = 0

    def hold_bytes(self, size: int) -> None:
        """Take room for so many more bytes of the body; raises Overloaded."""
        inside = self._admission
        others = inside.body_bytes - self.body_bytes
        if others and inside.body_bytes + size > inside.limits.body_bytes:
            raise _too_many("The gateway holds as many bytes of bodies as it has room for.")
        self.body_bytes += size
        inside.body_bytes += size

    def hold_rows(self, rows: int) -> None:
        """Take room for the request and its rows, once; raises Overloaded."""
        inside = self._admission
        limits = inside.limits
        load = inside.loads.get(self.model)
        if inside.rows and inside.rows + rows > limits.rows:
            raise _too_many("The gateway has as many rows waiting as it keeps.")
        if load is None:
            load = inside.loads[self.model] = _Load()
        elif load.requests >= limits.model_requests or load.rows + rows > limits.model_rows:
            raise _model_is_full()
        self.load = load
        self.rows = rows
        load.requests += 1
        load.rows += rows
        inside.rows += rows

    def __enter__(self) -> Visit:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._admission.release(self)


def _model_is_full() -> Overloaded:
    return _too_many("The model has as many requests or rows waiting as the gateway keeps for one.")


def _too_many(detail: str) -> Overloaded:
    return Overloaded(detail, retry_after_s=_RETRY_AFTER_S)
