"""The types a signature can speak of, as small frozen values.

Everything else in `gateway.contract` (parsing, frames, rendering, JSON Schema, differences) walks
these. This module knows nothing of JSON, MLflow's classes or pandas; of numpy it uses dtypes only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeAlias

import numpy as np

Kind = Literal["boolean", "integer", "long", "float", "double", "string", "binary", "datetime"]

SCALAR_KINDS: dict[str, Kind] = {
    "b": "boolean",
    "i": "long",
    "u": "long",
    "f": "double",
    "U": "string",
    "S": "binary",
    "M": "datetime",
}
"""What an element of a tensor is like, by the kind of its dtype; of numbers the widest."""

FLOAT32_MAX = float(np.finfo(np.float32).max)
FLOAT64_MAX = float(np.finfo(np.float64).max)


@dataclass(frozen=True, slots=True)
class Scalar:
    """One of MLflow's `DataType`s, by its name. A moment is of UTC, or has the offset that it was
    sent with (see `hinted`)."""

    kind: Kind
    has_offset: bool = False


@dataclass(frozen=True, slots=True)
class ArrayOf:
    """A list of any length whose elements all have one type, or are null where there are `gaps`."""

    items: Type
    gaps: bool = False


@dataclass(frozen=True, slots=True)
class MapOf:
    """An object with any keys whose values have one type, or are null where there are `gaps`."""

    values: Type
    gaps: bool = False


@dataclass(frozen=True, slots=True)
class Field:
    """A member of an object or a column. An optional one may be absent, and may be null.

    Where a type hint's class decides, what isn't of the type is handed over as it was sent.
    """

    name: str
    type: Type
    required: bool = True
    class_decides: bool = False


Extras = Literal["refused", "dropped", "kept"]
"""What becomes of members of an object that aren't declared."""


@dataclass(frozen=True, slots=True)
class ObjectOf:
    """An object with these members, and `extras` says whether with others."""

    fields: tuple[Field, ...]
    extras: Extras = "refused"


@dataclass(frozen=True, slots=True)
class TupleOf:
    """A list with one value per type: one row of a model with several unnamed columns."""

    items: tuple[Type, ...]


@dataclass(frozen=True, slots=True)
class TextOrTexts:
    """A string or a list of strings: what a column of strings takes where MLflow's wrapper of the
    flavor has several texts in one input (the labels of a zero-shot classifier, texts to embed).
    """


@dataclass(frozen=True, slots=True)
class AnyValue:
    """Any JSON value. As a bare input, an element or a map value also null, as a required member
    not."""


@dataclass(frozen=True, slots=True)
class TensorOf:
    """One row of a tensor: nested lists of `shape[1:]` (-1 is a free dimension).

    `shape[0]` is the number of rows that travel together: -1 is any number.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def inner(self) -> tuple[int, ...]:
        """The shape of one row."""
        return self.shape[1:]


Type: TypeAlias = Scalar | TextOrTexts | ArrayOf | MapOf | ObjectOf | TupleOf | AnyValue | TensorOf


@dataclass(frozen=True, slots=True)
class Rows:
    """What a list of inputs or outputs is made of: the columns or tensors of one signature.

    `labels` are the names as MLflow has them, parallel to `fields`: a DataFrame's column may be
    called by a number, which JSON can't. Unnamed columns are numbered from 0. `extras` are of the
    rows, where columns have names.
    """

    fields: tuple[Field, ...]
    labels: tuple[str | int, ...]
    named: bool
    extras: Extras = "refused"

    @property
    def tensors(self) -> bool:
        """Whether these are tensors (a signature never mixes them with columns)."""
        return isinstance(self.fields[0].type, TensorOf)

    @property
    def row(self) -> Type:
        """The JSON type of one row."""
        if self.named:
            return ObjectOf(self.fields, self.extras)
        if len(self.fields) == 1:
            return self.fields[0].type
        return TupleOf(tuple(field.type for field in self.fields))

    @property
    def chunk(self) -> int | None:
        """How many rows must travel together (a fixed first dimension); None is any number."""
        firsts = {f.type.shape[0] for f in self.fields if isinstance(f.type, TensorOf)}
        return max(firsts - {-1}, default=None)


ANYTHING = Rows((Field("0", AnyValue()),), (0,), named=False)
"""The inputs of a model without a signature: any value but null, or a list of values."""


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of a model; `type` is an `ArrayOf` for the shape (-1,).

    `default` is in its JSON form. Only where it is null may a caller send null.
    """

    name: str
    type: Type
    default: Any

    @property
    def nullable(self) -> bool:
        """Whether null is a value of this parameter."""
        return self.default is None


@cache
def integer_bounds(kind: str) -> tuple[int, int]:
    """Smallest and largest value of a whole-number kind (`integer`, `long`, numpy's names)."""
    names = {"integer": "int32", "long": "int64"}
    info = np.iinfo(names.get(kind, kind))
    return int(info.min), int(info.max)


@cache
def float_bound(kind: str) -> float:
    """Largest magnitude of a fractional kind (`float`, `double`, numpy's names)."""
    names = {"float": "float32", "double": "float64"}
    return float(np.finfo(names.get(kind, kind)).max)


def may_be_bare(type_: TensorOf) -> bool:
    """Whether a row of the tensor is one value, which says the same without its lists of one."""
    return set(type_.inner) == {1} and type_.dtype.kind != "O"


def takes_lists(type_: Type) -> bool:
    """Whether a JSON list can be one value of the type."""
    if isinstance(type_, TensorOf):
        return len(type_.inner) > 0 or type_.dtype.kind == "O"
    return isinstance(type_, ArrayOf | TupleOf | AnyValue)


def describe(type_: Type) -> str:
    """The type in a few characters, the way MLflow writes it: `Array(long)`, `{a: string}`."""
    match type_:
        case Scalar(kind):
            return kind
        case TextOrTexts():
            return "string or Array(string)"
        case ArrayOf(items):
            return f"Array({describe(items)})"
        case MapOf(values):
            return f"Map(str -> {describe(values)})"
        case AnyValue():
            return "Any"
        case TensorOf(dtype, shape):
            return f"Tensor({dtype.name}, {shape})"
        case TupleOf(items):
            return "(" + ", ".join(describe(item) for item in items) + ")"
        case ObjectOf(fields):
            return "{" + ", ".join(describe_field(field) for field in fields) + "}"


def describe_field(field: Field) -> str:
    """A member with its name: `a: long (optional)`; nothing is said of a required one."""
    optional = "" if field.required else " (optional)"
    return f"{field.name}: {describe(field.type)}{optional}"


def depth(type_: Type) -> int:
    """How many lists and objects are nested at most."""
    match type_:
        case TextOrTexts():
            return 1
        case ArrayOf(inner) | MapOf(inner):
            return 1 + depth(inner)
        case ObjectOf(fields):
            return 1 + max((depth(field.type) for field in fields), default=0)
        case TupleOf(items):
            return 1 + max((depth(item) for item in items), default=0)
        case TensorOf():
            return len(type_.inner)
        case _:
            return 0
