"""Admission control: bounds on the work inside the gateway at once, per model and in all.

Owns the count of requests, rows and bytes, whatever they wait for: the rest of a body, a call that
is under way, their turn, a model that is starting, a caller who takes the answer. Past a bound a
request is refused at once. What callers alone decide the duration of (bodies that are still coming,
answers that are still being read) has no more than a share of the bytes, and each model no more
than a share of that; small bodies and answers always have room.
Also knows which models are in use, because it sees their requests come and go.

The counts are of one process and one event loop. Must not import ray, mlflow or fastapi.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

from gateway.errors import Overloaded

_RETRY_AFTER_S = 1.0

SMALL_BYTES = 64 * 1024
"""A body or an answer up to this size always has room: each has a connection, and those are
bounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """Bounds on what one process holds at once.

    `model_requests` and `model_rows` are of each model, `rows` and `body_bytes` of all together.
    Of `body_bytes` half is for bodies that are still coming, half for answers that are being read;
    of each of these a model has half at most. What comes while nothing else of the kind is there
    is always let in, so that no bound refuses a request for its own size.
    """

    model_requests: int = 1024
    model_rows: int = 200_000
    rows: int = 800_000
    body_bytes: int = 512 * 1024 * 1024

    @property
    def slow_bytes(self) -> int:
        """Of bodies that are still coming, or of answers that are being read, in all."""
        return self.body_bytes // 2

    @property
    def model_slow_bytes(self) -> int:
        """The same, of one model."""
        return self.body_bytes // 4


@dataclass(slots=True)
class _Load:
    """What is inside of one model."""

    requests: int = 0
    rows: int = 0


class _Slow:
    """Bytes that callers are sending or taking, by model and in all."""

    def __init__(self, limits: AdmissionLimits) -> None:
        self._limits = limits
        self.total = 0
        self.models: dict[str, int] = {}

    def has_room(self, model: str, size: int, own: int = 0) -> bool:
        """Whether so many more fit for one who has `own` already; for who is alone they do."""
        limits, of_model = self._limits, self.models.get(model, 0)
        if of_model - own and of_model + size > limits.model_slow_bytes:
            return False
        return not (self.total - own and self.total + size > limits.slow_bytes)

    def is_full(self, model: str) -> bool:
        """Whether nothing more of the model has room."""
        return self.models.get(model, 0) >= self._limits.model_slow_bytes

    def add(self, model: str, size: int) -> None:
        """Count so many more, or fewer."""
        self.total += size
        of_model = self.models.get(model, 0) + size
        if of_model:
            self.models[model] = of_model
        else:
            self.models.pop(model, None)


class Admission:
    """Lets requests in, or raises Overloaded."""

    def __init__(self, limits: AdmissionLimits | None = None) -> None:
        self.limits = limits or AdmissionLimits()
        self.loads: dict[str, _Load] = {}
        self.rows = 0
        self.body_bytes = 0
        self.coming = _Slow(self.limits)
        self.leaving = _Slow(self.limits)
        self._used: set[str] = set()

    def arrive(self, model: str) -> Visit:
        """A request for `model` has come: to be left when its answer is sent.

        Raises Overloaded where the model is full already, before anything of the body is read.
        """
        load = self.loads.get(model)
        if load is not None and (
            load.requests >= self.limits.model_requests or load.rows >= self.limits.model_rows
        ):
            raise _model_is_full()
        if self.leaving.total and self.leaving.is_full(model):
            raise _unread()
        return Visit(self, model)

    def inside(self, model: str) -> int:
        """How many requests of a model are inside."""
        load = self.loads.get(model)
        return 0 if load is None else load.requests

    def take_used(self) -> list[str]:
        """The models that had work inside at any time since this was last asked."""
        used = self._used | self.loads.keys()
        self._used = set()
        return sorted(used)

    def release(self, visit: Visit) -> None:
        """Give back all that the visit held."""
        if visit.coming_bytes:
            self.coming.add(visit.model, -visit.coming_bytes)
        if visit.leaving_bytes:
            self.leaving.add(visit.model, -visit.leaving_bytes)
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

    __slots__ = (
        "_admission", "body_bytes", "coming_bytes", "leaving_bytes", "load", "model", "rows"
    )  # fmt: skip

    def __init__(self, admission: Admission, model: str) -> None:
        self._admission = admission
        self.model = model
        self.load: _Load | None = None
        self.rows = 0
        self.body_bytes = 0
        self.coming_bytes = 0
        self.leaving_bytes = 0

    def hold_bytes(self, size: int) -> None:
        """Take room for so many more bytes of the body, which is still coming; raises
        Overloaded."""
        inside, held = self._admission, self.body_bytes + size
        if held > SMALL_BYTES:
            if inside.body_bytes > self.body_bytes and (
                inside.body_bytes + size > inside.limits.body_bytes
            ):
                raise _too_many("The gateway holds as many bytes of bodies as it has room for.")
            more = held - self.coming_bytes
            if not inside.coming.has_room(self.model, more, self.coming_bytes):
                raise _too_many("As many bytes of bodies are coming as there is room for.")
            inside.coming.add(self.model, more)
            self.coming_bytes = held
        self.body_bytes = held
        inside.body_bytes += size

    def has_come(self) -> None:
        """All of the body is there."""
        if self.coming_bytes:
            self._admission.coming.add(self.model, -self.coming_bytes)
            self.coming_bytes = 0

    def hold_rows(self, rows: int) -> None:
        """Take room for the request and its rows, unless that is held; raises Overloaded."""
        if self.load is not None:
            return
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

    def hold_answer(self, size: int) -> None:
        """The answer is made and has so many bytes: they are held instead of the request's rows
        and bytes, until the caller has them. Raises Overloaded."""
        if size <= SMALL_BYTES:
            return
        inside = self._admission
        if not inside.leaving.has_room(self.model, size):
            raise _unread()
        inside.leaving.add(self.model, size)
        self.leaving_bytes = size
        inside.body_bytes += size - self.body_bytes
        self.body_bytes = size
        inside.rows -= self.rows
        if self.load is not None:
            self.load.rows -= self.rows
        self.rows = 0

    def leave(self) -> None:
        """Give back all that is held."""
        self._admission.release(self)

    def __enter__(self) -> Visit:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()


def _model_is_full() -> Overloaded:
    return _too_many("The model has as many requests or rows waiting as the gateway keeps for one.")


def _unread() -> Overloaded:
    return _too_many("As many bytes of answers as the gateway keeps have not been read yet.")


def _too_many(detail: str) -> Overloaded:
    return Overloaded(detail, retry_after_s=_RETRY_AFTER_S)
