"""Which columns the rows of a captured version have, and the table of many requests.

One row per input. Columns of the request itself have plain names (`FACTS`); an input `x` is
`input.x`, an output `y` is `output.y`, a param `p` is `param.p`, so that none can be another's; the
only one that has no name is `input` or `output`. What nobody typed is JSON text: the answers of
agents and of models without an output signature, the inputs of those without any. A request that
could not be read is one row without inputs. An answer of another length than its request has rows
of its own where it is the longer one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import numpy as np
import orjson

from gateway.capture.arrow_columns import JSON, Cells, arrow_array
from gateway.capture.kept import Kept
from gateway.capture.left_out import INPUT, OUTPUT, PARAM, is_left_out, without
from gateway.catalog import Resolution
from gateway.contract import AnswerColumn, Contract, Frame, Output
from gateway.contract.outputs import joined_output, row_count
from gateway.contract.rendering import UNNAMED, is_anything
from gateway.contract.types import AnyValue, ArrayOf, Field, MapOf, ObjectOf, Param, Rows, Type
from gateway.errors import InvalidModelOutput

EVENTS = "events"
"""Of versions that stream: what a stream had, as a JSON list."""

FACTS = (
    "time", "request_id", "correlation_id", "row", "model", "version", "asked", "protocol",
    "status", "error", "ms",
)  # fmt: skip
"""The columns that every row has."""

_OK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """A column in the file, and where its cells are: by the label that a frame has, or the name
    that an answer's column or a param has."""

    name: str
    label: str | int
    type: Type
    nullable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """Rows of one request that went to the model in one frame, or one row without inputs."""

    kept: Kept
    places: Sequence[int | None]
    frame: Frame | None = None
    output: Output | None = None

    @property
    def rows(self) -> int:
        return len(self.places)

    @property
    def is_even(self) -> bool:
        """Whether there is one answer for each input."""
        return self.output is not None and row_count(self.output) == self.rows


class Shape:
    """The columns of one version's rows, answered for one contract. Makes tables of them."""

    def __init__(self, resolution: Resolution) -> None:
        self._contract = resolution.contract
        self._drop = frozenset(resolution.model.options.capture_drop)
        self._inputs = self._wanted(INPUT, _inputs(self._contract))
        self._params = self._wanted(PARAM, map(_param, self._contract.params))
        outputs = _outputs(self._contract)
        promised = self._contract.promised
        # A table of any columns is JSON texts of its rows, where anything is declared.
        self._is_typed = outputs is not None and promised is not None and not is_anything(promised)
        self._outputs = self._wanted(OUTPUT, outputs or [_unnamed(OUTPUT)])
        self._has_events = resolution.version.streamable and self._keeps(OUTPUT, EVENTS)

    def table(self, kept: Sequence[Kept]) -> Any:
        """A `pyarrow.Table` of these requests' rows; raises what can't be a table: ValueError,
        TypeError, OverflowError, InvalidModelOutput (PyArrow's own errors are among the first)."""
        import pyarrow as pa

        pieces = [piece for each in kept for piece in _pieces(each)]
        columns = _facts(pieces)
        for column in self._inputs:
            columns[column.name] = self._input_array(column, pieces)
        for column in self._params:
            cells = [_param_of(each.kept, column) for each in pieces]
            columns[column.name] = _spread(pieces, arrow_array([cells], column.type, nullable=True))
        if self._outputs:
            columns |= self._output_arrays(pieces)
        if self._has_events:
            columns[EVENTS] = _spread(pieces, pa.array(map(_events, pieces), pa.string()))
        return pa.table(columns)

    def _wanted(self, part: str, columns: Any) -> list[_Column]:
        return [column for column in columns if self._keeps(part, column.label)]

    def _keeps(self, part: str, label: str | int) -> bool:
        return not is_left_out(self._drop, part, str(label))

    def _input_array(self, column: _Column, pieces: Sequence[_Piece]) -> Any:
        if self._contract.untyped:
            texts = [
                without(self._drop, INPUT, cell) for each in pieces for cell in _whole_cells(each)
            ]
            return arrow_array([texts], JSON, nullable=True)
        if self._contract.task is not None:
            parts = [_member(each, column) for each in pieces]
        else:
            parts = [_cells(each, column) for each in pieces]
        return arrow_array(parts, column.type, nullable=column.nullable)

    def _output_arrays(self, pieces: Sequence[_Piece]) -> dict[str, Any]:
        if not self._is_typed:
            (column,) = self._outputs
            answers = list(chain.from_iterable(map(self._untyped_answers, pieces)))
            return {column.name: arrow_array([answers], column.type, nullable=column.nullable)}
        parts: dict[str | int, list[Cells]] = {column.label: [] for column in self._outputs}
        for group in _runs(pieces):
            answer = self._answer(group)
            rows = sum(each.rows for each in group)
            for label, cells in parts.items():
                cells.append(_padded(answer[label].values if label in answer else [], rows))
        return {
            column.name: arrow_array(parts[column.label], column.type, nullable=column.nullable)
            for column in self._outputs
        }

    def _answer(self, pieces: Sequence[_Piece]) -> dict[str | int, AnswerColumn]:
        """The answers of these pieces by column: all are even, or there is one."""
        outputs = [each.output for each in pieces if each.output is not None]
        joined = joined_output(outputs) if outputs else None
        if joined is None:
            return {}
        rows = row_count(joined)
        if rows is None:
            raise InvalidModelOutput("The columns of the model's answer have different lengths.")
        return {each.name: each for each in self._contract.columns([(range(rows), joined)], rows)}

    def _untyped_answers(self, piece: _Piece) -> list[Any]:
        if piece.output is None:
            return [None] * piece.rows
        rows = row_count(piece.output) or 0
        answers = orjson.loads(self._contract.render([(range(rows), piece.output)], rows))
        if self._drop:
            answers = [without(self._drop, OUTPUT, each) for each in answers]
        return _padded(answers, piece.rows)


def known_columns(contract: Contract) -> frozenset[str]:
    """All names by which `capture_drop` may mean a column of a version with that contract."""
    columns = [*_inputs(contract), *(_outputs(contract) or ()), *map(_param, contract.params)]
    names = {name for each in columns for name in (each.name, str(each.label))}
    return frozenset({INPUT, OUTPUT, PARAM, EVENTS, *names})


def says_all(contract: Contract) -> bool:
    """Whether the contract names all columns that there may be: an answer or a request of which it
    says nothing may have others, as members of JSON texts."""
    return not contract.untyped and contract.task is None and contract.promised is not None


def _inputs(contract: Contract) -> list[_Column]:
    if contract.untyped:
        return [_unnamed(INPUT)]
    rows = contract.inputs
    columns = _named(INPUT, INPUT, rows)
    if contract.task is None:
        return columns
    return [_Column(name=c.name, label=c.label, type=_or_text(c.type), nullable=True)
            for c in columns]  # fmt: skip


def _outputs(contract: Contract) -> list[_Column] | None:
    """None where nobody said what an answer has."""
    if contract.task is not None or contract.promised is None or contract.untyped:
        return None
    return _named(OUTPUT, UNNAMED, contract.promised)


def _named(part: str, unnamed: str, rows: Rows) -> list[_Column]:
    if not rows.named and len(rows.fields) == 1:
        (field,), (label,) = rows.fields, rows.labels
        found = label if part == INPUT else unnamed
        return [_Column(name=part, label=found, type=field.type, nullable=_nullable(field))]
    labels: Sequence[str | int] = rows.labels if part == INPUT else [f.name for f in rows.fields]
    return [
        _Column(name=f"{part}.{f.name}", label=label, type=f.type, nullable=_nullable(f))
        for f, label in zip(rows.fields, labels, strict=True)
    ]


def _nullable(field: Field) -> bool:
    return not field.required


def _param(param: Param) -> _Column:
    return _Column(name=f"{PARAM}.{param.name}", label=param.name, type=param.type, nullable=True)


def _unnamed(part: str) -> _Column:
    return _Column(name=part, label=part, type=JSON, nullable=True)


def _or_text(type_: Type) -> Type:
    """Of an agent what is more than a value is text: its objects hold more than is declared."""
    return AnyValue() if isinstance(type_, ArrayOf | MapOf | ObjectOf) else type_


def _pieces(kept: Kept) -> Iterator[_Piece]:
    request = kept.request
    if request is None or not request.frames:
        yield _Piece(kept=kept, places=[None])
        return
    outputs: Iterator[Output | None] = repeat(None)
    if kept.outputs is not None and kept.status == _OK:
        outputs = iter(output for _, output in kept.outputs)
    for (places, frame), output in zip(request.frames, outputs, strict=False):
        answered = 0 if output is None else row_count(output) or 0
        more = range(places[-1] + 1, places[-1] + 1 + answered - len(places))
        yield _Piece(kept=kept, places=[*places, *more], frame=frame, output=output)


def _facts(pieces: Sequence[_Piece]) -> dict[str, Any]:
    import pyarrow as pa

    def of(values: Callable[[Kept], Any], type_: Any) -> Any:
        return _spread(pieces, pa.array([values(each.kept) for each in pieces], type_))

    text = pa.string()
    return {
        "time": of(lambda each: round(each.at_s * 1e6), pa.timestamp("us", tz="UTC")),
        "request_id": of(lambda each: each.request_id, text),
        "correlation_id": of(lambda each: each.correlation_id, text),
        "row": pa.array([place for each in pieces for place in each.places], pa.int32()),
        "model": of(lambda each: each.resolution.model.name, text),
        "version": of(lambda each: each.resolution.version.number, pa.int64()),
        "asked": of(lambda each: each.asked, text),
        "protocol": of(lambda each: each.protocol, text),
        "status": of(lambda each: each.status, pa.int32()),
        "error": of(lambda each: each.error, text),
        "ms": of(lambda each: each.spent_ms, pa.float64()),
    }


def _spread(pieces: Sequence[_Piece], array: Any) -> Any:
    """A value for each piece as one for each of its rows."""
    if all(each.rows == 1 for each in pieces):
        return array
    return array.take(np.repeat(np.arange(len(pieces)), [each.rows for each in pieces]))


def _cells(piece: _Piece, column: _Column) -> Cells:
    frame = piece.frame
    if frame is None or column.label not in frame.names:
        return [None] * piece.rows
    cells = frame.columns[frame.names.index(column.label)]
    return cells if len(cells) == piece.rows else _padded(cells, piece.rows)


def _param_of(kept: Kept, column: _Column) -> Any:
    return None if kept.request is None else kept.request.params.get(str(column.label))


def _member(piece: _Piece, column: _Column) -> Cells:
    """Of the object that an agent was given."""
    cells = _whole_cells(piece)
    return [None if cell is None else cell.get(column.label) for cell in cells]


def _whole_cells(piece: _Piece) -> list[Any]:
    """The inputs as they are, one by one."""
    return _padded([] if piece.frame is None else piece.frame.columns[0], piece.rows)


def _padded(cells: Cells, rows: int) -> list[Any]:
    values = list(cells)
    return values + [None] * (rows - len(values))


def _runs(pieces: Sequence[_Piece]) -> Iterator[Sequence[_Piece]]:
    """Pieces one after the other whose answers are alike enough to be taken as one."""
    run: list[_Piece] = []
    for piece in pieces:
        if run and not (piece.is_even and run[0].is_even and _is_alike(piece, run[0])):
            yield run
            run = []
        run.append(piece)
    if run:
        yield run


def _is_alike(piece: _Piece, other: _Piece) -> bool:
    assert piece.output is not None
    assert other.output is not None
    if piece.output[0] == "columns" and other.output[0] == "columns":
        return list(piece.output[1]) == list(other.output[1])
    return piece.output[0] == other.output[0]


def _events(piece: _Piece) -> str | None:
    events = piece.kept.events
    return None if events is None else f"[{','.join(each.decode() for each in events)}]"
