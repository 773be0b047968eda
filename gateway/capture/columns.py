"""Which columns the rows of a captured version have, and the table of many requests.

One row per input. Columns of the request itself have plain names (`FACTS`); an input `x` is
`input.x`, an output `y` is `output.y`, a param `p` is `param.p`, so that none can be another's; the
only one that has no name is `input` or `output`. What nobody typed is JSON text: the answers of
agents and of models without an output signature, the inputs of those without any. A request that
could not be read is one row without inputs. An answer of another length than its request has rows
of its own where it is the longer one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
import orjson

from gateway.capture.arrow_columns import JSON, Cells, arrow_array
from gateway.capture.kept import Kept
from gateway.capture.left_out import INPUT, OUTPUT, PARAM, is_left_out, without
from gateway.capture.pieces import Piece, pieces_of, runs_of
from gateway.catalog import Resolution
from gateway.contract import AnswerColumn, Contract
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

        pieces = list(pieces_of(kept))
        columns = _facts(pieces)
        for column in self._inputs:
            columns[column.name] = self._input_array(column, pieces)
        for column in self._params:
            cells = [_param_of(each, column) for each in pieces]
            array = arrow_array([cells], column.type, nullable=True)
            columns[column.name] = _spread([each.rows for each in pieces], array)
        if self._outputs:
            columns |= self._output_arrays(pieces)
        if self._has_events:
            array = pa.array(map(_events, pieces), pa.string())
            columns[EVENTS] = _spread([each.rows for each in pieces], array)
        return pa.table(columns)

    def _wanted(self, part: str, columns: Any) -> list[_Column]:
        return [column for column in columns if self._keeps(part, column.label)]

    def _keeps(self, part: str, label: str | int) -> bool:
        return not is_left_out(self._drop, part, str(label))

    def _input_array(self, column: _Column, pieces: Sequence[Piece]) -> Any:
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

    def _output_arrays(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        if not self._is_typed:
            (column,) = self._outputs
            answers = list(chain.from_iterable(map(self._untyped_answers, pieces)))
            return {column.name: arrow_array([answers], column.type, nullable=column.nullable)}
        parts: dict[str | int, list[Cells]] = {column.label: [] for column in self._outputs}
        for group in runs_of(pieces):
            answer = self._answer(group)
            rows = sum(each.rows for each in group)
            for label, cells in parts.items():
                cells.append(_padded(answer[label].values if label in answer else [], rows))
        return {
            column.name: arrow_array(parts[column.label], column.type, nullable=column.nullable)
            for column in self._outputs
        }

    def _answer(self, pieces: Sequence[Piece]) -> dict[str | int, AnswerColumn]:
        """The answers of these pieces by column: all are even, or there is one."""
        outputs = [each.output for each in pieces if each.output is not None]
        joined = joined_output(outputs) if outputs else None
        if joined is None:
            return {}
        rows = row_count(joined)
        if rows is None:
            raise InvalidModelOutput("The columns of the model's answer have different lengths.")
        return {each.name: each for each in self._contract.columns([(range(rows), joined)], rows)}

    def _untyped_answers(self, piece: Piece) -> list[Any]:
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


def _facts(pieces: Sequence[Piece]) -> dict[str, Any]:
    import pyarrow as pa

    requests = [each for piece in pieces for each in piece.requests]
    sizes = [size for piece in pieces for size in piece.sizes]

    rows = sum(sizes)

    def of(name: str, type_: Any) -> Any:
        return _spread(sizes, pa.array(list(map(attrgetter(name), requests)), type_))

    def of_all(value: Any, type_: Any) -> Any:
        return pa.repeat(pa.scalar(value, type_), rows)

    text, resolution = pa.string(), requests[0].resolution
    at_us = [round(each.at_s * 1e6) for each in requests]
    return {
        "time": _spread(sizes, pa.array(at_us, pa.timestamp("us", tz="UTC"))),
        "request_id": of("request_id", text),
        "correlation_id": of("correlation_id", text),
        "row": pa.array([place for each in pieces for place in each.places], pa.int32()),
        "model": of_all(resolution.model.name, text),
        "version": of_all(resolution.version.number, pa.int64()),
        "asked": of("asked", text),
        "protocol": of("protocol", text),
        "status": of("status", pa.int32()),
        "error": of("error", text),
        "ms": of("spent_ms", pa.float64()),
    }


def _spread(sizes: Sequence[int], array: Any) -> Any:
    """A value for each of so many rows."""
    if set(sizes) == {1}:
        return array
    return array.take(np.repeat(np.arange(len(sizes)), sizes))


def _cells(piece: Piece, column: _Column) -> Cells:
    frame = piece.frame
    if frame is None or column.label not in frame.names:
        return [None] * piece.rows
    cells = frame.columns[frame.names.index(column.label)]
    return cells if len(cells) == piece.rows else _padded(cells, piece.rows)


def _param_of(piece: Piece, column: _Column) -> Any:
    """Those that were read together have none."""
    request = piece.requests[0].request
    return None if request is None else request.params.get(str(column.label))


def _member(piece: Piece, column: _Column) -> Cells:
    """Of the object that an agent was given."""
    cells = _whole_cells(piece)
    return [None if cell is None else cell.get(column.label) for cell in cells]


def _whole_cells(piece: Piece) -> list[Any]:
    """The inputs as they are, one by one."""
    return _padded([] if piece.frame is None else piece.frame.columns[0], piece.rows)


def _padded(cells: Cells, rows: int) -> list[Any]:
    values = list(cells)
    return values + [None] * (rows - len(values))


def _events(piece: Piece) -> str | None:
    events = piece.requests[0].events
    return None if events is None else f"[{','.join(each.decode() for each in events)}]"
