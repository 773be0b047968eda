"""One request that is captured: what is known of it, noted step by step while it is answered.

References only: nothing is copied or made on the path of a request. One that was read together
with others refers to what is all of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.catalog import Resolution
from gateway.contract import Frame, Joint, Output, Outputs, Request
from gateway.contract.outputs import output_slice

_MAX_EVENT_BYTES = 1 << 20
_CELL_BYTES = 8


@dataclass(slots=True, kw_only=True)
class Kept:
    """A request, filled by whoever reads, answers and ends it.

    `asked` is the version, alias or `latest` that the caller named, `at_s` when it came in Unix
    time, `correlation_id` the caller's own. `status` is that of the answer, `error` the code of the
    error. Of a stream `events` has the first MiB. `size_bytes` is about what it holds in memory.

    One that was read together with others is number `number` of the `joint`, and its rows of
    `joint_output` are its answer; until it `stands_alone`, which makes `request` and `outputs`.
    """

    resolution: Resolution
    asked: str | None
    protocol: str
    request_id: str
    correlation_id: str | None
    at_s: float
    request: Request | None = None
    outputs: Outputs | None = None
    joint: Joint | None = None
    number: int = 0
    joint_output: Output | None = None
    events: list[bytes] | None = None
    status: int = 0
    error: str | None = None
    spent_ms: float = 0.0
    size_bytes: int = 0
    _event_bytes: int = field(default=0)

    def note_request(self, request: Request, size_bytes: int) -> None:
        """The request as it was read, of so many bytes, which may stand for many more cells."""
        self.request, self.joint = request, None
        cells = sum(_cells(frame) for _, frame in request.frames)
        self.size_bytes += max(size_bytes, cells * _CELL_BYTES)

    def note_joint(self, joint: Joint, number: int, size_bytes: int) -> None:
        """The same of one that was read together with others, of so many bytes itself."""
        self.joint, self.number = joint, number
        # All are held by whoever is kept of them.
        callers = len(joint.sizes)
        kept = max(1.0, callers * self.resolution.model.options.capture / 100.0)
        whole = max(size_bytes * callers, _cells(joint.frame) * _CELL_BYTES)
        self.size_bytes += round(whole / kept)

    def note_outputs(self, outputs: Outputs, size_bytes: int) -> None:
        """What the model gave for each frame, an answer of so many bytes."""
        self.outputs = outputs
        self.size_bytes += size_bytes

    def note_joint_output(self, output: Output, size_bytes: int) -> None:
        """What the model gave for all of them, an answer of so many bytes to this one."""
        self.joint_output = output
        self.size_bytes += size_bytes

    def stands_alone(self) -> None:
        """Have a request, and an answer where there is one, of its own."""
        joint, self.joint = self.joint, None
        if joint is None:
            return
        self.request = request = joint.request(self.number)
        if self.joint_output is not None:
            output = output_slice(self.joint_output, *joint.bounds(self.number))
            self.outputs = [(places, output) for places, _ in request.frames]

    def note_event(self, event: bytes) -> None:
        """The next event of a stream."""
        if self.events is None:
            self.events = []
        self._event_bytes += len(event)
        if self._event_bytes <= _MAX_EVENT_BYTES:
            self.events.append(event)
            self.size_bytes += len(event)


def _cells(frame: Frame) -> int:
    return len(frame.columns) * frame.rows
