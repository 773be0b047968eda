"""What a model's answer means: one value per row, one sequence per output, or one object for a row.

A list of arrays may hold a row's outputs in each element, or all rows of one output (as
scikit-learn's `predict_proba` has it for several outputs), and a dict of lists may be columns or
one row's object. The number of rows and the output signature say which, where only one way fits
both; else the flavor does, where it always means the same; else the model itself is asked once
more, about another number of rows, so that both can't look alike. That is done once: what a list
means is a property of the model's code. Where it can't be told, it isn't guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, List, NamedTuple

if TYPE_CHECKING:
    Ask = Callable[[tuple[int, ...]], Any]

_PER_OUTPUT_FLAVORS = frozenset(
    "mlflow." + name
    for name in (
        "catboost", "keras", "lightgbm", "onnx", "paddle", "pytorch", "sklearn", "tensorflow",
        "xgboost",
    )
)  # fmt: skip
"""Of these a list of arrays of two or more dimensions has an array for each output."""

_ONE_ROW_FLAVORS = frozenset({"mlflow.dspy"})
"""Of these a model takes one row, so that a dict is what it answers to that."""

_LOOKED_AT = 8
"""How many elements of a list are compared with the type that is declared."""

_TEXTS = (str, bytes, bytearray, memoryview)
_BY_ROW, _BY_OUTPUT = "by row", "by output"
_KINDS = {
    "string": _TEXTS[:1],
    "binary": _TEXTS[1:],
}


class AmbiguousOutput(Exception):
    """It can't be told whether the answer has rows or outputs."""


class ByColumn(NamedTuple):
    """An answer that has a sequence with one element per row for each of its columns."""

    names: list[Any]
    columns: list[Any]
    is_dict: bool = False


class Alone(List[Any]):
    """A list of the one value that was the whole answer, to one row."""


class Reading:
    """Reads the answers of one model, by its output schema (MLflow's, None where it has none)."""

    def __init__(self, flavor: str | None, outputs: Any, *, hinted: bool = False) -> None:
        self._flavor = flavor or ""
        self._schema = outputs
        self._hinted = hinted
        self._lists: str | None = None
        self._dicts: str | None = None

    @classmethod
    def of(cls, model: Any) -> Reading:
        """For a model that MLflow has loaded."""
        metadata = model.metadata
        hinted = getattr(metadata, "_is_signature_from_type_hint", lambda: False)
        pyfunc = (metadata.flavors or {}).get("python_function", {})
        return cls(pyfunc.get("loader_module"), metadata.get_output_schema(), hinted=bool(hinted()))

    def read(self, answer: Any, rows: int, ask: Ask) -> Any:
        """The answer to so many rows with a value per row, or as `ByColumn`.

        `ask` asks the model about the rows at some positions of the call; None where it fails on
        them. Raises AmbiguousOutput.
        """
        names = self._names_in(answer)
        if names and isinstance(answer, tuple):
            answer = dict(zip(names, answer))
        elif names:
            return ByColumn(names, _columns_of_records(answer, names))
        if isinstance(answer, dict):
            return self._dict(answer, rows, ask)
        if rows == 1 and self._is_of_one_row(answer):
            return [answer]
        if isinstance(answer, (list, tuple)) and answer and all(map(_is_sequence, answer)):
            return self._list(answer, rows, ask)
        return answer

    def _is_of_one_row(self, answer: Any) -> bool:
        """Whether a sequence is what is declared of a row, and its elements aren't."""
        if len(self._types()) != 1 or not _is_sequence(answer):
            return False
        (declared,) = self._types()
        elements = (_at(answer, i) for i in range(min(_length(answer), _LOOKED_AT)))
        return _fits(answer, declared) and not all(_fits(each, declared) for each in elements)

    def _names_in(self, answer: Any) -> list[str]:
        """What an answer of named tuples, or an array of records, calls its columns; nothing where
        the schema knows none of these."""
        names = _names_of(answer)
        return names if any(name in self._named() for name in names) else []

    # --- lists ------------------------------------------------------------------------------------

    def _list(self, answer: Sequence[Any], rows: int, ask: Ask) -> Any:
        if any(_length(each) != rows for each in answer):
            return answer
        if len(answer) != rows:
            is_outputs = self._has_an_element_per_output(answer, rows, ask)
            return _turned(answer, rows) if is_outputs else answer
        if rows == 1:  # both ways say the same
            return answer
        meaning = self._known_of_lists(answer) or self._meaning_of_lists(answer, rows, ask)
        return _turned(answer, rows) if meaning == _BY_OUTPUT else answer

    def _has_an_element_per_output(self, answer: Sequence[Any], rows: int, ask: Ask) -> bool:
        """Whether what isn't a list of rows, for there are more or fewer, has outputs. Else it is
        an answer of another length than its rows."""
        if len(answer) > 1 and len(self._types()) == len(answer):
            return True
        if not all(map(_is_array, answer)):
            return False
        if rows > 1 or all(each.ndim > 1 for each in answer):
            return True
        if self._lists is None:
            self._lists = _BY_OUTPUT if _has_lengths(ask((0, 0)), 2) else _BY_ROW
        return self._lists == _BY_OUTPUT

    def _known_of_lists(self, answer: Sequence[Any]) -> str | None:
        """What needs no question."""
        if self._hinted:  # by MLflow's rule for type hints: an element per row
            return _BY_ROW
        if self._flavor in _PER_OUTPUT_FLAVORS:
            matrices = all(_is_array(each) and each.ndim > 1 for each in answer)
            return _BY_OUTPUT if matrices else None
        # Of a custom model nobody but its author knows it.
        is_custom = self._flavor.startswith("mlflow.pyfunc") or self._flavor[:7] != "mlflow."
        return None if is_custom else _BY_ROW

    def _meaning_of_lists(self, answer: Sequence[Any], rows: int, ask: Ask) -> str:
        as_rows, as_outputs = self._fits_rows(answer), self._fits_rows(_turned(answer, rows))
        if as_rows != as_outputs:
            return _BY_ROW if as_rows else _BY_OUTPUT
        if self._lists is None:
            self._lists = _meaning_of_list(ask((0,)))
        if self._lists is None:
            raise AmbiguousOutput
        return self._lists

    def _fits_rows(self, answer: Sequence[Any]) -> bool:
        types = self._types()
        if len(types) < 2:
            return all(_fits(each, types[0]) for each in answer[:_LOOKED_AT]) if types else True
        return all(
            _length(each) == len(types) and all(map(_fits, each, types))
            for each in answer[:_LOOKED_AT]
        )

    # --- dicts ------------------------------------------------------------------------------------

    def _dict(self, answer: Any, rows: int, ask: Ask) -> Any:
        if not answer or not all(map(_is_sequence, answer.values())):
            return Alone([answer])
        if self._flavor in _ONE_ROW_FLAVORS or any(_length(v) != rows for v in answer.values()):
            return Alone([answer])
        as_object = self._fits_object(answer)
        as_columns = self._fits_columns(answer, rows)
        if as_object != as_columns:
            return Alone([answer]) if as_object else _columns(answer)
        if any(map(_is_array, answer.values())):
            return _columns(answer)
        if self._dicts is None:
            asked = (0, 0) if rows == 1 else (0,)
            self._dicts = _meaning_of_dict(ask(asked), len(asked))
        if self._dicts is None:
            raise AmbiguousOutput
        return Alone([answer]) if self._dicts == _BY_ROW else _columns(answer)

    def _fits_object(self, answer: Any) -> bool:
        """Whether the dict can be what is declared of one row."""
        named = self._named()
        if named:
            return all(_fits(answer[name], named[name]) for name in named if name in answer)
        types = self._types()
        return not types or (len(types) == 1 and _fits(answer, types[0]))

    def _fits_columns(self, answer: Any, rows: int) -> bool:
        """Whether the elements of its lists can be what is declared of one row."""
        named = self._named()
        looked_at = range(min(rows, _LOOKED_AT))
        if named:
            known = [name for name in named if name in answer]
            return all(_fits(_at(answer[n], i), named[n]) for n in known for i in looked_at)
        types = self._types()
        if len(types) != 1:
            return True
        return any(
            all(_fits(each, types[0]) for each in made)
            for made in (
                [{name: _at(column, i) for name, column in answer.items()} for i in looked_at],
                [[_at(column, i) for column in answer.values()] for i in looked_at],
                [_at(next(iter(answer.values())), i) for i in looked_at if len(answer) == 1]
                or [{}],
            )
        )

    # --- the schema -------------------------------------------------------------------------------

    def _types(self) -> list[Any]:
        return [] if self._schema is None else list(map(_type_of, self._schema.inputs))

    def _named(self) -> Any:
        """The declared types by their names; empty where they have none."""
        if self._schema is None or not self._schema.has_input_names():
            return {}
        return {str(spec.name): _type_of(spec) for spec in self._schema.inputs}


def _type_of(spec: Any) -> Any:
    return spec if type(spec).__name__ == "TensorSpec" else spec.type


def _has_lengths(answer: Any, rows: int) -> bool:
    """Whether it has sequences only, of so many elements each."""
    if not isinstance(answer, (list, tuple)) or not answer or not all(map(_is_sequence, answer)):
        return False
    return all(_length(each) == rows for each in answer)


def _meaning_of_list(answer: Any) -> str | None:
    """What a list means of the model that answers one row so."""
    if isinstance(answer, (list, tuple)) and len(answer) == 1:
        return _BY_ROW
    return _BY_OUTPUT if _has_lengths(answer, 1) else None


def _meaning_of_dict(answer: Any, rows: int) -> str | None:
    """What a dict means of the model that answers so many rows so, and as many lists' elements as
    there were to another number of rows."""
    if not isinstance(answer, dict) or not answer or not all(map(_is_sequence, answer.values())):
        return None
    return _BY_OUTPUT if _has_lengths(list(answer.values()), rows) else _BY_ROW


def _names_of(answer: Any) -> list[str]:
    """The names that come with what has positions as well."""
    if isinstance(answer, tuple) and hasattr(answer, "_fields"):
        return list(answer._fields)
    if isinstance(answer, list) and answer and isinstance(answer[0], tuple):
        kinds = set(map(type, answer))
        return list(getattr(answer[0], "_fields", ())) if len(kinds) == 1 else []
    if getattr(answer, "ndim", 0) == 1:
        return list(getattr(answer.dtype, "names", None) or ())
    return []


def _columns_of_records(answer: Any, names: list[str]) -> list[Any]:
    if isinstance(answer, list):
        return [[row[i] for row in answer] for i in range(len(names))]
    return [answer[name] for name in names]


def _columns(answer: Any) -> ByColumn:
    return ByColumn(list(answer), list(answer.values()), is_dict=True)


def _turned(answer: Sequence[Any], rows: int) -> list[Any]:
    """A list per row, of a sequence of `rows` elements per output."""
    return [[_at(each, i) for each in answer] for i in range(rows)]


def _at(values: Any, i: int) -> Any:
    return values.iloc[i] if hasattr(values, "iloc") else values[i]


def _is_array(value: Any) -> bool:
    """An array, a series or a tensor: something with a shape, but no table."""
    return getattr(value, "ndim", 0) > 0 and hasattr(value, "dtype")


def _is_sequence(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or _is_array(value)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (list, tuple)) else int(value.shape[0])


def _fits(value: Any, declared: Any) -> bool:
    """Whether a value may be of a declared type, by a look at its first elements."""
    if value is None:
        return True
    kind = type(declared).__name__
    if kind in ("Array", "SparkMLVector"):
        return _is_sequence(value) and all(
            _fits(_at(value, i), declared.dtype) for i in range(min(_length(value), _LOOKED_AT))
        )
    if kind == "Map":
        return isinstance(value, dict) and all(
            _fits(each, declared.value_type) for each in value.values()
        )
    if kind == "Object":
        members = {each.name: each for each in declared.properties}
        return isinstance(value, dict) and all(
            _fits(value[name], each.dtype) if name in value else not each.required
            for name, each in members.items()
        )
    if kind == "TensorSpec":
        return _dimensions(value) == len(declared.shape) - 1
    if kind == "DataType":
        return _fits_scalar(value, declared.name)
    return True  # Any, or what this MLflow has and we don't know


def _fits_scalar(value: Any, kind: str) -> bool:
    if isinstance(value, dict) or _is_sequence(value):
        return False
    wanted = _KINDS.get(kind)
    if wanted is not None:
        return isinstance(value, wanted)
    return kind == "datetime" or not isinstance(value, _TEXTS)


def _dimensions(value: Any) -> int:
    if isinstance(value, (list, tuple)):
        return 1 + (_dimensions(value[0]) if value else 0)
    return int(getattr(value, "ndim", 0))
