"""One request that is captured: what is known of it, noted step by step while it is answered.

References only: nothing is copied or made on the path of a request.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.catalog import Resolution
from gateway.contract import Outputs, Request

_MAX_EVENT_BYTES = 1 << 20
_CELL_BYTES = 8


@dataclass(slots=True, kw_only=True)
class Kept:
    """A request, filled by whoever reads, answers and ends it.

    `asked` is the version, alias or `latest` that the caller named, `at_s` when it came in Unix
    time, `correlation_id` the caller's own. `status` is that of the answer, `error` the code of the
    error. Of a stream `events` has the first MiB. `size_bytes` is about what it holds in memory.
    """

    resolution: Resolution
    asked: str | None
    protocol: str
    request_id: str
    correlation_id: str | None
    at_s: float
    request: Request | None = None
    outputs: Outputs | None = None
    events: list[bytes] | None = None
    status: int = 0
    error: str | None = None
    spent_ms: float = 0.0
    size_bytes: int = 0
    _event_bytes: int = field(default=0)

    def note_request(self, request: Request, size_bytes: int) -> None:
        """The request as it was read, of so many bytes, which may stand for many more cells."""
        self.request = request
        cells = sum(len(frame.columns) * frame.rows for _, frame in request.frames)
        self.size_bytes += max(size_bytes, cells * _CELL_BYTES)

    def note_outputs(self, outputs: Outputs, size_bytes: int) -> None:
        """What the model gave for each frame, an answer of so many bytes."""
        self.outputs = outputs
        self.size_bytes += size_bytes

    def note_event(self, event: bytes) -> None:
        """The next event of a stream."""
        if self.events is None:
            self.events = []
        self._event_bytes += len(event)
        if self._event_bytes <= _MAX_EVENT_BYTES:
            self.events.append(event)
            self.size_bytes += len(event)
