"""The messages of calls and outcomes, packed and unpacked.

What a call brings is plain: a frame `(layout, names, columns)` and inference params. What comes
back is an outcome, a kind and its value; the kinds are

- `("ok", output)`: the model's answer in plain form (see `output.plain_output`)
- `("late", None)`: its turn didn't come before it was given up
- `("model_failed", None)`: the model's own code raised; the reason goes to the log
- `("unsupported_output", None)`: the answer has no plain form
- `("refused", refusals)`: the model's type hint takes not all of its rows (see `hinted`)
- `("ambiguous_output", None)`: it can't be told what its lists mean (see `answers`)
- `("event", output)`: of a stream, what came next; `("end", None)` is its end

A call that streams is answered by any number of events and one outcome of another kind.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple, Tuple

import numpy as np

from .framing import PREFIX, MalformedMessage, Message, packed
from .values import Reader, Writer, dumped, loaded

_HEAD = struct.Struct("<ddII")
EVENT, END = "event", "end"
OK, LATE, MODEL_FAILED, UNSUPPORTED = "ok", "late", "model_failed", "unsupported_output"
AMBIGUOUS, REFUSED = "ambiguous_output", "refused"

Frame = Tuple[str, Tuple[Any, ...], Tuple[Any, ...]]


class Call(NamedTuple):
    """A frame and inference params for the version that the process has.

    `give_up_at` is when a call that has not begun is given up, of the monotonic clock, which all
    processes of a machine share; a model that takes longer than `patience_s` seconds has hung.
    `traceparent` is the span that the call comes from, where it is traced (W3C Trace Context).
    `slots` is how many calls the process may answer at once, this one among them; one that
    `streams` is answered piece by piece.
    """

    frame: Frame
    params: Mapping[str, Any]
    give_up_at: float
    patience_s: float
    traceparent: str | None = None
    slots: int = 1
    streams: bool = False


class Outcome(NamedTuple):
    """What came of a call; `model_s` is how long the model's own code took, in seconds, and
    `begun_at` when it began, of the system's clock in nanoseconds since the epoch."""

    kind: str
    value: Any = None
    model_s: float = 0.0
    begun_at: int = 0


def packed_call(call: Call) -> bytes:
    """The call as it travels."""
    header, buffers = dumped(lambda writer: _described_call(call, writer))
    head = _HEAD.pack(call.give_up_at, call.patience_s, call.slots, call.streams)
    return packed(head + header, buffers)


def given_up_at(message: bytes, at: float) -> bytes:
    """The same packed call, given up at another time: it came from a machine with another clock."""
    changed = bytearray(message)
    _, *rest = _HEAD.unpack_from(changed, PREFIX.size)
    _HEAD.pack_into(changed, PREFIX.size, at, *rest)
    return bytes(changed)


class Demand(NamedTuple):
    """What a call asks of a process: see `Call`."""

    slots: int
    streams: bool


def demand_of(header: bytes, at: int = 0) -> Demand:
    """What the call asks whose header begins there. Raises MalformedMessage."""
    try:
        _, _, slots, streams = _HEAD.unpack_from(header, at)
    except struct.error as error:
        raise MalformedMessage(str(error)) from error
    return Demand(max(1, slots), bool(streams))


def demand_of_packed(message: bytes) -> Demand:
    """What a packed call asks."""
    return demand_of(message, PREFIX.size)


def unpacked_call(message: Message) -> Call:
    """The call that came. Raises MalformedMessage."""
    try:
        give_up_at, patience_s, slots, streams = _HEAD.unpack_from(message.header)
        said = loaded(message.header[_HEAD.size :])
        reader = Reader(message.body)
        layout, names, columns, params = said["l"], said["n"], said["c"], said.get("p")
        frame = (layout, tuple(names), _columns(columns, reader))
        read = {} if params is None else reader.read(params)
        return Call(frame, read, give_up_at, patience_s, said.get("t"), slots, bool(streams))
    except (struct.error, KeyError, TypeError, AttributeError) as error:
        raise MalformedMessage(str(error)) from error


def packed_outcome(outcome: Outcome) -> bytes:
    """The outcome as it travels. Raises TypeError or RecursionError for an answer that can't."""
    header, buffers = dumped(lambda writer: _described_outcome(outcome, writer))
    return packed(header, buffers)


def unpacked_outcome(message: Message) -> Outcome:
    """The outcome that came. Raises MalformedMessage."""
    try:
        said = loaded(message.header)
        value = said.get("w")
        if said.get("o") is not None:
            value = _output(said["o"], Reader(message.body))
        elif said["k"] == REFUSED:
            value = [(int(row), list(path), str(text)) for row, path, text in said["w"]]
        return Outcome(str(said["k"]), value, float(said["s"]), int(said["b"]))
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise MalformedMessage(str(error)) from error


def _described_call(call: Call, writer: Writer) -> Any:
    layout, names, columns = call.frame
    said = {"l": layout, "n": names, "c": _described_columns(columns, writer)}
    if call.params:
        said["p"] = writer.describe(dict(call.params))
    if call.traceparent is not None:
        said["t"] = call.traceparent
    return said


def _described_columns(columns: tuple[Any, ...], writer: Writer) -> list[Any]:
    """Columns of one type as one block, which is what most tables are."""
    first = columns[0] if columns else None
    if (
        len(columns) > 1
        and type(first) is np.ndarray
        and first.ndim == 1
        and all(
            type(each) is np.ndarray and each.dtype == first.dtype and each.ndim == 1
            for each in columns
        )
        and first.dtype.kind != "O"
    ):
        block = np.concatenate(columns)
        return ["block", len(columns), writer.describe(block)]
    return ["each", *(writer.describe(each) for each in columns)]


def _columns(described: list[Any], reader: Reader) -> tuple[Any, ...]:
    if described[0] == "block":
        block = reader.read(described[2])
        return tuple(block.reshape(described[1], -1))
    return tuple(reader.read(each) for each in described[1:])


def _described_outcome(outcome: Outcome, writer: Writer) -> Any:
    said = {"k": outcome.kind, "s": outcome.model_s, "b": outcome.begun_at}
    if outcome.kind in (OK, EVENT):
        kind, *rest = outcome.value
        if kind == "columns":
            names, columns, *mark = rest
            said["o"] = ["columns", names, [writer.describe(each) for each in columns], *mark]
        else:
            values, *mark = rest
            said["o"] = ["values", writer.describe(values), *mark]
    elif outcome.value is not None:
        said["w"] = outcome.value
    return said


def _output(described: list[Any], reader: Reader) -> tuple[Any, ...]:
    if described[0] == "columns":
        columns = [reader.read(each) for each in described[2]]
        return ("columns", described[1], columns, *_mark(described[3:]))
    return ("values", reader.read(described[1]), *_mark(described[2:]))


def _mark(described: list[Any]) -> list[Any]:
    """What else the answer was (`gateway.contract.outputs.Mark`), where that is said."""
    return [tuple(map(str, each)) for each in described[:1]]
