"""The contract of a model: what callers may send and what they will get.

Puts the modules of this package together; the rules themselves are theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import orjson

from gateway.contract import json_schema
from gateway.contract.body import BodyReader
from gateway.contract.columns import ColumnChecker, Table
from gateway.contract.encoding import Target, encoder
from gateway.contract.extension import extended_params, extended_rows
from gateway.contract.frames import Frame, Framer, Placed
from gateway.contract.outputs import Output
from gateway.contract.plain_table import PlainTable
from gateway.contract.rendering import AnswerColumn, Renderer
from gateway.contract.signature import read_signature
from gateway.contract.types import ArrayOf, ObjectOf, Param, Rows
from gateway.errors import InvalidInput, too_many_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A valid request: rows as frames for the model, and what to pass as `params=`.

    `frames` holds each frame with the positions of its rows in the request; usually there is one,
    with `range(rows)`, and none for an empty list. Params that the caller left out are not in
    `params`, so that MLflow fills in its defaults. `echo` is what the answer must repeat of the
    request or follow in it, of a protocol that has such a thing.
    """

    rows: int
    frames: Placed
    params: dict[str, Any]
    echo: Any = None


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What a model takes and gives. Immutable; validators are built when first needed.

    `inputs`, `outputs` (None: anything) and `params` are the model's own. `accepted`,
    `accepted_params` and `promised` differ from them only where the version answers for the
    contract of another one (see `extended_by`).
    """

    inputs: Rows
    outputs: Rows | None
    params: tuple[Param, ...]
    from_type_hints: bool
    accepted: Rows
    accepted_params: tuple[Param, ...]
    promised: Rows | None

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
            accepted=read.inputs,
            accepted_params=read.params,
            promised=read.outputs,
        )

    def extended_by(self, served: Contract) -> Contract:
        """This version's contract for callers who were promised `served`.

        Requests may also hold what `served` has and this version dropped, which is validated by
        the type it had and left out before the model is called; answers are those of `served`.
        Only for versions that may: `differences(served, self)` is empty.
        """
        extended = Contract(
            inputs=self.inputs,
            outputs=self.outputs,
            params=self.params,
            from_type_hints=self.from_type_hints,
            accepted=extended_rows(self.accepted, served.accepted),
            accepted_params=extended_params(self.accepted_params, served.accepted_params),
            promised=served.promised,
        )
        return self if extended == self else extended

    def still_taking(self, earlier: Contract) -> Contract:
        """This contract for callers who may also send what `earlier` took and it dropped.

        As in `extended_by`, but the answers are this contract's own.
        """
        return replace(self.extended_by(earlier), promised=self.promised)

    def parse(self, body: bytes, *, max_rows: int | None = None) -> Request:
        """The request; of more than `max_rows` rows nothing but their number is looked at.

        Raises `MalformedJson`, `PayloadTooLarge`, and `InvalidInput` with pointers into the body.
        """
        if self._plain_table is not None:
            frame = self._plain_table.read(body, max_rows)
            if frame is not None:
                return Request(rows=frame.rows, frames=((range(frame.rows), frame),), params={})
        read = self._reader.read(body, max_rows)
        return Request(
            rows=len(read.rows),
            frames=self._framer.frames(read.rows, read.at, read.single),
            params=self._encoded(read.params),
        )

    def take(self, table: Table, *, max_rows: int | None = None, echo: Any = None) -> Request:
        """The request that came as columns; it means what the same cells in JSON rows mean.

        Raises `PayloadTooLarge`, and `InvalidInput` with pointers by the table's `places`.
        """
        if max_rows is not None and table.rows > max_rows:
            raise too_many_rows(max_rows)
        params, wrong = self._reader.read_params(dict(table.params)) if table.params else ({}, [])
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

    def render(self, outputs: Sequence[tuple[Sequence[int], Output]], rows: int) -> bytes:
        """The answer as a JSON list with one element per row of the request.

        `outputs` has what came back for each frame, with the positions of the frame's rows.
        Raises `InvalidModelOutput` where it doesn't fit the signature.
        """
        return self._renderer.render(outputs, rows)

    def columns(
        self, outputs: Sequence[tuple[Sequence[int], Output]], rows: int
    ) -> list[AnswerColumn]:
        """The same answer by column; raises `InvalidModelOutput`."""
        return self._renderer.columns(outputs, rows)

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
        tensors are too large for one."""
        return json_schema.example_body(self.inputs)

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

    @cached_property
    def _reader(self) -> BodyReader:
        return BodyReader(self.accepted, self.accepted_params)

    @cached_property
    def _columns(self) -> ColumnChecker:
        return ColumnChecker(self.accepted)

    @cached_property
    def _plain_table(self) -> PlainTable | None:
        return PlainTable.of(self.inputs, self.accepted)

    @cached_property
    def _framer(self) -> Framer:
        return Framer(self.inputs, self.accepted, from_type_hints=self.from_type_hints)

    @cached_property
    def _renderer(self) -> Renderer:
        return Renderer(self.outputs, self.promised)

    @cached_property
    def _param_encoders(self) -> dict[str, Any]:
        taken = {param.name: param.type for param in self.accepted_params}
        return {p.name: encoder(p.type, taken[p.name], _target(p)) for p in self.params}

    def _encoded(self, params: dict[str, Any]) -> dict[str, Any]:
        """The params that the model knows, as MLflow's enforcement takes them."""
        encoded = {}
        for name, how in self._param_encoders.items():
            if name in params:
                value = params[name]
                encoded[name] = value if how is None or value is None else how(value)
        return encoded

    def __getstate__(self) -> dict[str, Any]:
        """The description alone: what is built from it stays out of pickles."""
        return {name: self.__dict__[name] for name in self.__dataclass_fields__}


def _target(param: Param) -> Target:
    """MLflow checks an object as it checks a column, and takes plain values for all else."""
    kind = param.type.items if isinstance(param.type, ArrayOf) else param.type
    return Target.ENFORCED if isinstance(kind, ObjectOf) else Target.PLAIN
