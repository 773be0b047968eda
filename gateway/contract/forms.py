"""The forms that a request and an answer may have: how one is read and one is written.

A form is a pair of functions over a contract. `Read` crosses to the process that parses large
bodies, so it is a function of a module, or a `functools.partial` of one, and imports nothing that
this package doesn't.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any, TypeAlias

from gateway.contract.contract import Contract, Request, request_of
from gateway.contract.frames import Frame
from gateway.contract.json_together import values_of
from gateway.contract.outputs import Output, bounds_of

Outputs: TypeAlias = Sequence[tuple[Sequence[int], Output]]
"""What came back for each frame of a request, with the positions of the frame's rows."""

Read: TypeAlias = Callable[[Contract, bytes, int | None], Request]
"""Reads a body of at most so many rows; raises what `Contract.parse` and `Contract.take` raise."""

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """An answer's body, what it is, and headers that belong to it (names in lower case)."""

    body: bytes
    media_type: bytes = b"application/json"
    headers: Headers = ()


Write: TypeAlias = Callable[[Contract, Request, Outputs], Written]
"""Writes the answer to a request; raises `InvalidModelOutput`, and `NotAcceptable` for what the
form has no way to say."""


def read_typed(contract: Contract, body: bytes, max_rows: int | None) -> Request:
    """The typed route's JSON."""
    return contract.parse(body, max_rows=max_rows)


def write_typed(contract: Contract, request: Request, outputs: Outputs) -> Written:
    """The typed route's JSON: a list with one element per row."""
    return Written(body=contract.render(outputs, request.rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class Joint:
    """Several requests that were read together: all of their rows in one frame, and how many are
    each one's. `echoes` are as `Request.echo`, one for each."""

    frame: Frame
    sizes: Sequence[int]
    echoes: Sequence[Any]

    @property
    def whole(self) -> Request:
        """All of them as one."""
        return request_of(self.frame, self.echoes[0])

    def parts(self, rows: Sequence[Any]) -> list[Any]:
        """What belongs to the rows of each."""
        return [rows[start:stop] for start, stop in bounds_of(self.sizes)]

    def request(self, number: int) -> Request:
        """One of them by itself."""
        return request_of(self.frame.slice(*self.bounds(number)), self.echoes[number])

    def bounds(self, number: int) -> tuple[int, int]:
        """Where the rows of one of them begin and end."""
        start = sum(self.sizes[:number])
        return start, start + self.sizes[number]


@dataclass(frozen=True, slots=True, kw_only=True)
class TogetherForm:
    """How several requests are read at once, and their answers written, where nothing is the matter
    with any of them: what comes of each is what comes of it alone."""

    read: Callable[[Contract, Sequence[bytes]], Joint | None]
    write: Callable[[Contract, Joint, Output], Sequence[bytes] | None]
    """The bodies of their answers, in JSON."""


def _read_typed_together(contract: Contract, bodies: Sequence[bytes]) -> Joint | None:
    values = values_of(bodies)
    if values is None:
        return None
    return joined_rows(contract, [each if type(each) is list else [each] for each in values])


def joined_rows(contract: Contract, each: Sequence[list[Any]], *, echo: Any = None) -> Joint | None:
    """Requests that are JSON's rows, of plain values; None where one of them isn't."""
    sizes = [len(rows) for rows in each]
    rows = [row for rows in each for row in rows]
    request = contract.take_plain_rows(rows) if all(sizes) else None
    return None if request is None else _joint(request, sizes, echo)


def joined_columns(
    contract: Contract, each: Sequence[Mapping[str, list[Any]]], *, echo: Any = None
) -> Joint | None:
    """The same of JSON's columns, which are equally long in each."""
    names = each[0].keys()
    if any(columns.keys() != names for columns in each):
        return None
    sizes = [len(next(iter(columns.values()), ())) for columns in each]
    joined = {name: list(chain.from_iterable(map(itemgetter(name), each))) for name in names}
    request = contract.take_plain(joined, sum(sizes)) if all(sizes) else None
    return None if request is None else _joint(request, sizes, echo)


def _joint(request: Request, sizes: Sequence[int], echo: Any) -> Joint:
    ((_, frame),) = request.frames
    return Joint(frame=frame, sizes=sizes, echoes=[echo] * len(sizes))


def _write_typed_together(
    contract: Contract, joint: Joint, output: Output
) -> Sequence[bytes] | None:
    return contract.render_each(output, joint.sizes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How a request is read, and its answer written; several `together`, where that is possible."""

    read: Read = read_typed
    write: Write = write_typed
    together: TogetherForm | None = None


TYPED = Form(together=TogetherForm(read=_read_typed_together, write=_write_typed_together))
