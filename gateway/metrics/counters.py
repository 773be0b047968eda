"""Counters and gauges of one ingress process: requests, rows, calls, queues.

Counted in plain dictionaries on the event loop, because it is done for every prediction: no locks,
no objects of a metrics library (docs/decisions/0024). What is read only when somebody asks (who is
inside, who waits) is counted by nobody twice. Must not import ray, mlflow or fastapi.
"""

from __future__ import annotations

from gateway.catalog import Catalog
from gateway.metrics.families import (
    CALL_DURATION,
    CALL_ROWS,
    REQUEST_DURATION,
    REQUEST_ROWS,
    REQUESTS,
    STREAM_EVENTS,
    STREAM_FIRST_EVENT,
    Histogram,
    Reading,
)
from gateway.ports import MODEL_STEP, Call, CallResult, PredictionBackend

CALLER_LEFT = 499
"""The status of a request whose caller left before the answer; nginx has it so."""

UNKNOWN = ""
"""The model's label where the catalog has none of that name. Prometheus has no difference between
an empty label and none."""

TYPED = "modelmux"
"""The protocol's label of the typed route."""

_OK = 200

VersionOf = tuple[str, int]
"""A model's name and a version's number."""


class _Answers:
    """What came of the predictions of a version that went well."""

    __slots__ = ("duration", "rows")

    def __init__(self) -> None:
        self.duration = Histogram(REQUEST_DURATION)
        self.rows = 0


class _Calls:
    """The calls of a version."""

    __slots__ = ("duration", "rows")

    def __init__(self) -> None:
        self.duration = Histogram(CALL_DURATION)
        self.rows = Histogram(CALL_ROWS)


class _Streams:
    """The streams of a version."""

    __slots__ = ("events", "first")

    def __init__(self) -> None:
        self.first = Histogram(STREAM_FIRST_EVENT)
        self.events = 0


class Traffic:
    """Counts of one process, from its start."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, int | None, int, str], int] = {}
        self._answers: dict[tuple[str, int, str], _Answers] = {}
        self._calls: dict[VersionOf, _Calls] = {}
        self._streams: dict[VersionOf, _Streams] = {}

    def note_answer(
        self, model: str, version: int, spent_s: float, rows: int, *, protocol: str = TYPED
    ) -> None:
        """A prediction was answered with 200."""
        self.note_failure(model, version, _OK, protocol=protocol)
        key = (model, version, protocol)
        answers = self._answers.get(key)
        if answers is None:
            answers = self._answers[key] = _Answers()
        answers.duration.observe(spent_s)
        answers.rows += rows

    def note_first_event(self, model: str, version: int, spent_s: float) -> None:
        """The first event of a stream is there."""
        self._stream_of(model, version).first.observe(spent_s)

    def note_events(self, model: str, version: int, events: int) -> None:
        """A stream has ended, however, of so many events."""
        self._stream_of(model, version).events += events

    def _stream_of(self, model: str, version: int) -> _Streams:
        return self._streams.setdefault((model, version), _Streams())

    def note_failure(
        self, model: str, version: int | None, status: int, *, protocol: str = TYPED
    ) -> None:
        """A prediction was answered otherwise; `model` is in the catalog, or UNKNOWN."""
        requests, key = self._requests, (model, version, status, protocol)
        requests[key] = requests.get(key, 0) + 1

    def note_call(self, model: str, version: int, rows: int, spent_s: float) -> None:
        """A call of a version went well, and took the model so long."""
        key = (model, version)
        calls = self._calls.get(key)
        if calls is None:
            calls = self._calls[key] = _Calls()
        calls.rows.observe(rows)
        calls.duration.observe(spent_s)

    @property
    def models(self) -> set[str]:
        """The models that anything was counted of."""
        return {model for model, *_ in self._requests} - {UNKNOWN}

    def forget_all_but(self, catalog: Catalog) -> None:
        """Drop what the catalog has no more."""

        def is_there(model: str, version: int | None) -> bool:
            found = catalog.models.get(model)
            if found is None:
                return model == UNKNOWN
            return version is None or found.version(version) is not None

        for requests in [key for key in self._requests if not is_there(*key[:2])]:
            del self._requests[requests]
        for answers in [key for key in self._answers if not is_there(*key[:2])]:
            del self._answers[answers]
        for calls in [key for key in self._calls if not is_there(*key)]:
            del self._calls[calls]
        for streams in [key for key in self._streams if not is_there(*key)]:
            del self._streams[streams]

    def reading(self) -> Reading:
        """All counts, to be told."""
        answers = [
            ((name, str(number), protocol), each)
            for (name, number, protocol), each in self._answers.items()
        ]
        calls = [((name, str(number)), each) for (name, number), each in self._calls.items()]
        streams = [((name, str(number)), each) for (name, number), each in self._streams.items()]
        return {
            STREAM_FIRST_EVENT.name: [(labels, each.first.bins()) for labels, each in streams],
            STREAM_EVENTS.name: [(labels, each.events) for labels, each in streams],
            REQUESTS.name: [
                ((name, "" if number is None else str(number), str(status), protocol), count)
                for (name, number, status, protocol), count in self._requests.items()
            ],
            REQUEST_DURATION.name: [(labels, each.duration.bins()) for labels, each in answers],
            REQUEST_ROWS.name: [(labels, each.rows) for labels, each in answers],
            CALL_ROWS.name: [(labels, each.rows.bins()) for labels, each in calls],
            CALL_DURATION.name: [(labels, each.duration.bins()) for labels, each in calls],
        }


class TrafficCounter:
    """A `PredictionBackend` that counts the calls of another."""

    def __init__(self, backend: PredictionBackend, traffic: Traffic) -> None:
        self._backend = backend
        self._traffic = traffic

    async def call(self, call: Call) -> CallResult:
        """See `PredictionBackend.call`."""
        result = await self._backend.call(call)
        spent_s = result.timings_ms.get(MODEL_STEP, 0.0) / 1e3
        self._traffic.note_call(call.model.name, call.version.number, call.frame.rows, spent_s)
        return result
