"""The contract of a model: what callers may send and what they will get.

Puts the modules of this package together; the rules themselves are theirs.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import orjson

from gateway.contract import json_schema
from gateway.contract.body import Body, BodyReader
from gateway.contract.columns import ColumnChecker, Table
from gateway.contract.encoding import Target, encoder
from gateway.contract.extension import declared_rows, extended_params, extended_rows
from gateway.contract.frames import Frame, Framer, Placed, record_frames
from gateway.contract.hinted import located, loosened
from gateway.contract.outputs import Output
from gateway.contract.plain_table import PlainTable
from gateway.contract.rendering import AnswerColumn, Renderer
from gateway.contract.signature import read_signature
from gateway.contract.types import ArrayOf, ObjectOf, Param, Rows
from gateway.contract.untyped import untyped_frames, untyped_rows
from gateway.errors import InvalidInput, too_many_rows

_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A valid request: rows as frames for the model, and what to pass as `params=`.

    `frames` holds each frame with the positions of its rows in the request; usually there is one,
    with `range(rows)`, and none for an empty list. Params that the caller left out are not in
    `params`, so that MLflow fills in its defaults. `at` and `single` are as in `Body`. `echo` is
    what the answer must repeat of the request or follow in it, of a protocol that has such a thing.
    """

    rows: int
    frames: Placed
    params: dict[str, Any]
    at: tuple[str, ...] = ()
    single: bool = False
    echo: Any = None

    def located(self, refusal: InvalidInput) -> InvalidInput:
        """What the model refuses of the rows, with pointers into the body."""
        return located(refusal, self.at, single=self.single)


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What a model takes and gives. Immutable; validators are built when first needed.

    `inputs`, `outputs` (None: anything) and `params` are the model's own. `accepted`,
    `accepted_params` and `promised` differ from them only where the version answers for the
    contract of another one (see `extended_by`). `rows_are_dicts` where MLflow makes a dict of each
    row for the model. A version that is called `row_by_row` answers each input by a call of its
    own. One that is `untyped` has no signature: it takes and gives anything. `task` is one of
    `agents.TASKS`, where a request is one call with one object.
    """

    inputs: Rows
    outputs: Rows | None
    params: tuple[Param, ...]
    from_type_hints: bool
    row_by_row: bool = False
    untyped: bool = False
    accepted: Rows
    accepted_params: tuple[Param, ...]
    promised: Rows | None
    rows_are_dicts: bool = False
    task: str | None = None

    @classmethod
    def from_signature(
        cls, signature: Mapping[str, Any] | None, *, from_type_hints: bool = False
    ) -> Contract:
        """The contract of the `signature` mapping of an MLmodel file.

        Its members `inputs`, `outputs` and `params` are JSON texts or None. MLflow keeps the flag
        `is_signature_from_type_hint` beside that mapping; pass it as `from_type_hints`, or put it
        into the mapping. Raises `UntypableSignature`.
        """
        read = read_signature(signature, from_type_hints=from_type_hints)
        return cls(
            inputs=read.inputs,
            outputs=read.outputs,
            params=read.params,
            from_type_hints=read.from_type_hints,
            row_by_row=read.row_by_row,
            untyped=read.untyped,
            accepted=read.inputs,
            accepted_params=read.params,
            promised=read.outputs,
            rows_are_dicts=read.rows_are_dicts,
            task=read.task,
        )

    def extended_by(self, served: Contract) -> Contract:
        """This version's contract for callers who were promised `served`.

        Requests may also hold what `served` has and this version dropped, which is validated by
        the type it had and left out before the model is called; answers are those of `served`.
        Only for versions that may: `differences(served, self)` is empty. Where either is untyped
        nothing was promised, or nothing can be kept: it is this version's own contract.
        """
        if self.untyped or served.untyped:
            return self
        extended = replace(
            self,
            accepted=extended_rows(self.accepted, served.accepted),
            accepted_params=extended_params(self.accepted_params, served.accepted_params),
            promised=served.promised,
        )
        return self if extended == self else extended

    def still_taking(self, earlier: Contract) -> Contract:
        """This contract for the callers of `earlier`, too: they may also send what that took and
        this one dropped, as in `extended_by`.

        The answers are this contract's own. An optional output that it dropped stays one that may
        come, so that nothing else ever comes by that name.
        """
        promised = self.promised
        if promised is not None and earlier.promised is not None:
            promised = extended_rows(promised, earlier.promised)
        return replace(self.extended_by(earlier), promised=promised)

    def parse(self, body: bytes, *, max_rows: int | None = None) -> Request:
        """The request; of more than `max_rows` rows nothing but their number is looked at.

        Raises `MalformedJson`, `PayloadTooLarge`, and `InvalidInput` with pointers into the body.
        """
        if self._plain_table is not None:
            # Which may be ignored (RFC 8259, section 8.1); `read_json` does so below.
            frame = self._plain_table.read(body.removeprefix(BOM_UTF8), max_rows)
            if frame is not None:
                return request_of(frame)
        read = self._reader.read(body, max_rows)
        if self.untyped:
            return self._untyped(read, max_rows)
        return Request(
            rows=len(read.rows),
            frames=self._frames(read),
            params=self._encoded(read.params),
            at=read.at,
            single=read.single,
        )

    def take(self, table: Table, *, max_rows: int | None = None, echo: Any = None) -> Request:
        """The request that came as columns; it means what the same cells in JSON rows mean.

        Raises `PayloadTooLarge`, and `InvalidInput` with pointers by the table's `places`.
        """
        if max_rows is not None and table.rows > max_rows:
            raise too_many_rows(max_rows)
        given = dict(table.params)
        params, wrong = self._reader.read_params(given, table.places.params) if given else ({}, [])
        if self.untyped:
            rows, found = untyped_rows(table)
            if found or wrong:
                raise InvalidInput((*found, *wrong))
            frames = untyped_frames(rows, single=False)
            return Request(rows=len(rows), frames=frames, params={}, echo=echo)
        plain = None if self._plain_table is None or wrong else self._plain_table
        frame = None if plain is None else plain.of_columns(table.columns, table.rows)
        if frame is not None:
            placed = ((range(frame.rows), frame),)
            return Request(rows=frame.rows, frames=placed, params=self._encoded(params), echo=echo)
        columns, found = self._columns.checked(table)
        if found or wrong:
            raise InvalidInput((*found, *wrong))
        return Request(
            rows=table.rows,
            frames=self._framer.framed(columns, table.rows, table.places.place),
            params=self._encoded(params),
            echo=echo,
        )

    def _untyped(self, read: Body, max_rows: int | None) -> Request:
        frames = untyped_frames(read.rows, single=read.single)
        rows = sum(len(places) for places, _ in frames)
        if max_rows is not None and rows > max_rows:
            raise too_many_rows(max_rows)
        return Request(rows=rows, frames=frames, params={})

    def parse_columns(self, body: bytes, *, max_rows: int | None = None) -> Request | None:
        """The request of JSON's `{"columns": …}` with plain values; None where it must be read, and
        `take`n."""
        if self._plain_table is None:
            return None
        frame = self._plain_table.read_columns(body.removeprefix(BOM_UTF8), max_rows)
        return None if frame is None else request_of(frame)

    def take_plain(
        self, columns: Mapping[str, list[Any]], rows: int, *, echo: Any = None
    ) -> Request | None:
        """`take` of columns of JSON's plain values, several times as fast; None where they must go
        that way, which also knows how to say what is wrong."""
        frame = None if self._plain_table is None else self._plain_table.of_columns(columns, rows)
        return None if frame is None else request_of(frame, echo)

    def take_plain_rows(self, rows: list[Any], *, echo: Any = None) -> Request | None:
        """The same of JSON's rows."""
        frame = None if self._plain_table is None else self._plain_table.of_rows(rows)
        return None if frame is None else request_of(frame, echo)

    def render(self, outputs: Sequence[tuple[Sequence[int], Output]], rows: int) -> bytes:
        """The answer as a JSON list: one element per row of the request, or as many as the version
        gave where it was called for this request alone.

        `outputs` has what came back for each frame, with the positions of the frame's rows.
        Raises `InvalidModelOutput` where it doesn't fit the signature.
        """
        return self._renderer.render(outputs, rows)

    def render_each(self, output: Output, sizes: Sequence[int]) -> list[bytes] | None:
        """`render` of the answers to several requests of one frame each, with so many rows; None
        where they have to be rendered one by one."""
        return self._renderer.render_each(output, sizes)

    def columns(
        self, outputs: Sequence[tuple[Sequence[int], Output]], rows: int, *, arrays: bool = False
    ) -> list[AnswerColumn]:
        """The same answer by column, plain numbers as arrays where these are wanted; raises
        `InvalidModelOutput`."""
        return self._renderer.columns(outputs, rows, arrays=arrays)

    def render_event(self, value: Any) -> bytes:
        """What a model gave in a stream, as JSON; raises `InvalidModelOutput`."""
        return Renderer(None, None).render([(range(1), ("values", [value]))], 1)[1:-1]

    def derived(self, make: Callable[[Contract], _Made]) -> _Made:
        """What `make` makes of this contract, made once and kept as long as it."""
        kept = self._derived
        if make not in kept:
            kept[make] = make(self)
        made: _Made = kept[make]
        return made

    def request_schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of a request body."""
        return json_schema.request_schema(self.accepted, self.accepted_params)

    def response_schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of an answer. Floats may be null: NaN and the infinities are."""
        return json_schema.response_schema(self.promised)

    def record_schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of one input."""
        return json_schema.record_schema(self.accepted)

    def params_schema(self) -> dict[str, Any] | None:
        """JSON Schema (2020-12) of the object with the params; None where there are none."""
        if not self.accepted_params:
            return None
        return json_schema.params_object(self.accepted_params)

    def example(self) -> Any:
        """A small request body that `parse` accepts, without the optional columns; None where the
        tensors are too large for one, and where nobody knows what the model takes."""
        return None if self.untyped else json_schema.example_body(self.inputs)

    def zeros(self) -> Frame | None:
        """A frame that the model takes although its tensors are too large for an `example`: the
        fewest rows of zeros. None where there is no such thing, or it is too large as well."""
        return self._framer.zeros()

    def taken_apart(self, body: Any) -> tuple[list[Any], dict[str, Any]]:
        """The inputs of a body (as a JSON value) one by one, and its params, as they were sent.

        Raises what `parse` does.
        """
        read = self._reader.read(orjson.dumps(body))
        wrapped = read.at != ()
        inputs = body["inputs"] if wrapped else body
        params = body.get("params", {}) if wrapped else {}
        return [inputs] if read.single else inputs, params

    def _frames(self, read: Body) -> Placed:
        if self.task is not None:
            return record_frames(read.rows)
        return self._framer.frames(read.rows, read.at, read.single)

    @cached_property
    def _derived(self) -> dict[Any, Any]:
        return {}

    @cached_property
    def _taken(self) -> Rows:
        """What is accepted, but for what a type hint's class decides."""
        return loosened(self.accepted) if self.from_type_hints else self.accepted

    @cached_property
    def _reader(self) -> BodyReader:
        return BodyReader(self._taken, self.accepted_params)

    @cached_property
    def _columns(self) -> ColumnChecker:
        return ColumnChecker(self._taken)

    @cached_property
    def _plain_table(self) -> PlainTable | None:
        is_plain = self.task is None and not self.row_by_row
        return PlainTable.of(self.inputs, self.accepted) if is_plain else None

    @cached_property
    def _framer(self) -> Framer:
        return Framer(
            self.inputs,
            self.accepted,
            from_type_hints=self.from_type_hints,
            rows_are_dicts=self.rows_are_dicts,
            row_by_row=self.row_by_row,
        )

    @cached_property
    def _renderer(self) -> Renderer:
        if self.task is not None:  # whatever object the model gives
            return Renderer(None, None)
        if self.promised is None or self.outputs is None:
            return Renderer(self.outputs, self.promised)
        return Renderer(self.outputs, declared_rows(self.promised, self.outputs))

    @cached_property
    def _param_encoders(self) -> dict[str, Any]:
        taken = {param.name: param.type for param in self.accepted_params}
        return {p.name: encoder(p.type, taken[p.name], _target(p)) for p in self.params}

    def _encoded(self, params: dict[str, Any]) -> dict[str, Any]:
        """The params that the model knows, as MLflow's enforcement takes them, in their order."""
        encoded = {}
        for name, value in params.items():
            if name in self._param_encoders:
                how = self._param_encoders[name]
                encoded[name] = value if how is None or value is None else how(value)
        return encoded

    def __getstate__(self) -> dict[str, Any]:
        """The description alone: what is built from it stays out of pickles."""
        return {name: self.__dict__[name] for name in self.__dataclass_fields__}


def request_of(frame: Frame, echo: Any = None) -> Request:
    """The request with the rows of a frame, and no params."""
    return Request(rows=frame.rows, frames=((range(frame.rows), frame),), params={}, echo=echo)


def _target(param: Param) -> Target:
    """MLflow checks an object as it checks a column, and takes plain values for all else."""
    kind = param.type.items if isinstance(param.type, ArrayOf) else param.type
    return Target.ENFORCED if isinstance(kind, ObjectOf) else Target.PLAIN
