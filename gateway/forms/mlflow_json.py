"""The JSON that MLflow's scoring server takes (`mlflow.pyfunc.scoring_server`, MLflow 3.17), to
columns: exactly one of `dataframe_split`, `dataframe_records`, `instances` and `inputs`, and
`params`; or what language models take as it is. What MLflow ignores is ignored; what it would guess
or cast with a loss (a number in a text, a fraction for a whole number) is refused.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import numpy as np
import orjson
from pydantic_core import from_json

from gateway.contract import (
    Contract,
    Joint,
    Places,
    Request,
    Table,
    joined_rows,
    malformed,
    values_of,
)
from gateway.contract.columns import Column
from gateway.contract.types import AnyValue, ArrayOf, MapOf, ObjectOf, TensorOf
from gateway.contract.validation import Path
from gateway.errors import InvalidInput, Violation, too_many_rows

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_LANGUAGE = ("messages", "prompt", "input")
_SPLIT = {"columns", "data", "index"}
_NUMBERS_AND_NULL = {float, int, type(None)}


class _Records(Places):
    """In a list of records below members of the body."""

    def __init__(self, *at: str) -> None:
        self._at = at

    def cell(self, name: str, row: int) -> Path:
        """A row's cell of a column."""
        return (*self._at, row, name)

    def column(self, name: str) -> Path:
        """One that is missing everywhere."""
        return (*self._at, 0, name)


class _Split(Places):
    """In the rows of `dataframe_split`."""

    def __init__(self, names: list[str]) -> None:
        self._positions = {name: i for i, name in enumerate(names)}

    def cell(self, name: str, row: int) -> Path:
        """A row's cell of a column."""
        return ("dataframe_split", "data", row, self._positions.get(name, 0))

    def column(self, name: str) -> Path:
        """Among the columns' names."""
        if name not in self._positions:
            return ("dataframe_split", "columns")
        return ("dataframe_split", "columns", self._positions[name])


class _Columns(Places):
    """In an object with a list, or one value, for each column."""

    def __init__(self, *at: str, is_one_row: bool = False) -> None:
        self._at = at
        self._is_one_row = is_one_row

    def cell(self, name: str, row: int) -> Path:
        """A row's cell of a column."""
        return (*self._at, name) if self._is_one_row else (*self._at, name, row)

    def column(self, name: str) -> Path:
        """The member of the column."""
        return (*self._at, name)


class _Whole(Places):
    """The body itself, which is one input without a name."""

    def cell(self, name: str, row: int) -> Path:
        """All of it."""
        return ()

    def column(self, name: str) -> Path:
        """All of it."""
        return ()


class _Bare(Places):
    """In a list that is the only column itself."""

    def __init__(self, member: str, is_one_row: bool) -> None:
        self._member = member
        self._is_one_row = is_one_row

    def cell(self, name: str, row: int) -> Path:
        """A row."""
        return (self._member,) if self._is_one_row else (self._member, row)

    def column(self, name: str) -> Path:
        """All of it."""
        return (self._member,)


_Found = tuple[dict[str, Column], int, Places]


def read(contract: Contract, body: bytes, max_rows: int | None) -> Request:
    """The request; `echo` says whether it is one of language models, which is answered unwrapped.

    Raises `MalformedJson`, `InvalidInput` and `PayloadTooLarge`.
    """
    value = _loaded(body)
    if not isinstance(value, dict):
        raise _refused("", f"Expected an object with one of {', '.join(FORMS)}.")
    plain = _plain(contract, value, max_rows)
    if plain is not None:
        return plain
    known = {param.name for param in contract.accepted_params}
    if any(name in value for name in _LANGUAGE):
        row = {name: each for name, each in value.items() if name not in known}
        params = {name: each for name, each in value.items() if name in known}
        found, echo = _by_column(contract, row, (), max_rows), True
    else:
        given = value.get("params")
        if given is not None and not isinstance(given, dict):
            raise _refused("/params", "Expected an object.")
        params = {name: each for name, each in (given or {}).items() if name in known}
        found, echo = _rows(contract, value, max_rows), False
    columns, rows, places = found
    columns = _with_nan(contract, columns)
    bare = echo or isinstance(places, _Bare)
    table = Table(
        columns=columns, rows=rows, params=params, places=places, as_mlflow=True, bare=bare
    )
    request = contract.take(table, max_rows=max_rows, echo=echo)
    if not contract.from_type_hints or echo:
        return request
    return replace(request, at=("inputs",), single=not isinstance(value["inputs"], list))


def _plain(contract: Contract, value: dict[str, Any], max_rows: int | None) -> Request | None:
    """The request that is nothing but records of plain values, as the commonest are; None of all
    others."""
    records = _only_records(value)
    if records is None or contract.from_type_hints:
        return None
    if max_rows is not None and len(records) > max_rows:
        return None
    return contract.take_plain_rows(records, echo=False)


def read_together(contract: Contract, bodies: Sequence[bytes]) -> Joint | None:
    """Several requests that are nothing but records of plain values; None where one isn't."""
    values = None if contract.from_type_hints else values_of(bodies)
    if values is None:
        return None
    each = [_only_records(value) for value in values]
    found = [records for records in each if records is not None]
    return joined_rows(contract, found, echo=False) if len(found) == len(bodies) else None


def _only_records(value: Any) -> list[Any] | None:
    """The records of a body that has no other member."""
    if type(value) is not dict or len(value) != 1:
        return None
    records = value.get("dataframe_records")
    return records if type(records) is list else None


def _loaded(body: bytes) -> Any:
    """JSON, in which MLflow's clients write NaN as such."""
    body = body.removeprefix(BOM_UTF8)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return from_json(body, allow_inf_nan=True)
    except (ValueError, RecursionError):
        raise malformed(body) from None


def _with_nan(contract: Contract, columns: dict[str, Column]) -> dict[str, Column]:
    """Tensors of fractions with NaN or null in them as arrays, in which these are numbers as they
    are for MLflow: the contract's lists have none."""
    fields = contract.accepted.fields
    if not contract.accepted.tensors:
        return columns
    if contract.accepted.named:
        types = {field.name: field.type for field in fields}
    else:
        types = {name: field.type for name, field in zip(columns, fields, strict=False)}
    made = dict(columns)
    for name, column in columns.items():
        type_ = types.get(name)
        if isinstance(type_, TensorOf) and type_.dtype.kind == "f" and isinstance(column, list):
            made[name] = _fractions(column)
    return made


def _fractions(column: list[Any]) -> Column:
    """As an array where there are numbers with NaN or null among them; else as it is."""
    try:
        array = np.array(column, np.float64)
        if not np.isnan(array).any():
            return column
        # Which took texts and truth values for numbers.
        elements = np.array(column, object).ravel().tolist()
    except (ValueError, TypeError, OverflowError):
        return column
    return array if set(map(type, elements)) <= _NUMBERS_AND_NULL else column


def _rows(contract: Contract, value: dict[str, Any], max_rows: int | None) -> _Found:
    forms = [form for form in FORMS if form in value]
    if len(forms) != 1:
        raise _refused("", f"Expected exactly one of {', '.join(FORMS)}.")
    (form,) = forms
    data = value[form]
    if contract.from_type_hints and form != "inputs":
        raise _refused(f"/{form}", "A model with type hints takes inputs alone.")
    if contract.untyped and form in ("instances", "inputs") and not _is_an_array(data):
        message = "Without a signature a list of values or lists; records are dataframe_records."
        raise _refused(f"/{form}", message)
    if isinstance(data, list) and max_rows is not None and len(data) > max_rows and _are_rows(data):
        raise too_many_rows(max_rows)
    if form == "dataframe_split":
        return _split(data)
    if form == "dataframe_records":
        return _records(data, form)
    if isinstance(data, list) and data and all(isinstance(each, dict) for each in data):
        # Without names a row may be an object itself.
        if contract.accepted.named:
            return _records(data, form)
    elif isinstance(data, dict) and contract.accepted.named:
        return _by_column(contract, data, (form,), max_rows)
    return _bare(contract, data, form)


def _is_an_array(data: Any) -> bool:
    """Whether MLflow makes an array of it, and no dict of arrays, or one of a single value."""
    return isinstance(data, list) and not any(isinstance(each, dict) for each in data)


def _are_rows(data: list[Any]) -> bool:
    return isinstance(data[0], dict)


def _records(data: Any, *at: str) -> _Found:
    if not isinstance(data, list):
        raise _refused("/" + "/".join(at), "Expected a list of records.")
    for i, record in enumerate(data):
        if not isinstance(record, dict):
            raise _refused("/" + "/".join((*at, str(i))), "Expected an object.")
    names = dict.fromkeys(name for record in data for name in record)
    columns: dict[str, Column] = {name: [record.get(name) for record in data] for name in names}
    return columns, len(data), _Records(*at)


def _split(data: Any) -> _Found:
    at = "/dataframe_split"
    if not isinstance(data, dict) or not isinstance(data.get("data"), list):
        raise _refused(at, 'Expected an object with the member "data", a list of rows.')
    if data.keys() - _SPLIT:
        raise _refused(at, "Expected data, columns and index, and nothing else.")
    if data["data"] and all(isinstance(row, dict) for row in data["data"]):
        return _records(data["data"], "dataframe_split", "data")
    rows = [row if isinstance(row, list) else [row] for row in data["data"]]
    width = max(map(len, rows), default=0)
    names = data.get("columns")
    if names is None:
        names = list(range(width))
    if not isinstance(names, list) or (rows and len(names) != width):
        raise _refused(f"{at}/columns", f"Expected a list of {width} names.")
    texts = [str(name) for name in names]
    if len(set(texts)) < len(texts):
        raise _refused(f"{at}/columns", "Two columns have the same name.")
    cells = zip_longest(*rows) if rows else ([] for _ in texts)
    columns: dict[str, Column] = {
        name: list(column) for name, column in zip(texts, cells, strict=True)
    }
    return columns, len(rows), _Split(texts)


def _by_column(
    contract: Contract, data: dict[str, Any], at: tuple[str, ...], max_rows: int | None
) -> _Found:
    """An object of columns; it is one row where the values are no lists, or where MLflow takes it
    for one (`_enforce_schema`): beside columns of lists and objects, and of columns without
    names."""
    nested = any(isinstance(f.type, ArrayOf | ObjectOf) for f in contract.accepted.fields)
    tensors = contract.accepted.tensors
    is_one_row = not tensors and (
        nested
        or not contract.accepted.named
        or not any(isinstance(value, list) for value in data.values())
    )
    places = _Columns(*at, is_one_row=is_one_row)
    if _is_one_input(contract):
        return {"": [data]}, 1, _Whole()
    if is_one_row:
        return {name: [value] for name, value in data.items()}, 1, places
    lists = [value for value in data.values() if isinstance(value, list)]
    if tensors and len(lists) < len(data):
        name = next(name for name, value in data.items() if not isinstance(value, list))
        raise _refused("/" + "/".join((*at, name)), "Expected a list.")
    rows = max(map(len, lists), default=0)
    if max_rows is not None and rows > max_rows:
        raise too_many_rows(max_rows)
    # One value beside lists is that of all rows, as a DataFrame is made of it.
    columns: dict[str, Column] = {
        name: value if isinstance(value, list) else [value] * rows for name, value in data.items()
    }
    return columns, rows, places


def _is_one_input(contract: Contract) -> bool:
    """Whether an object is what the only input takes; else its members are columns, which without
    names in the signature are taken in their order."""
    if contract.accepted.named:
        return False
    types = [field.type for field in contract.accepted.fields]
    takes_objects = any(isinstance(type_, ObjectOf | MapOf | AnyValue) for type_ in types)
    return takes_objects or contract.untyped or contract.from_type_hints


def _bare(contract: Contract, data: Any, form: str) -> _Found:
    """The only column: a list with its rows, or one row that is no list."""
    fields = contract.accepted.fields
    one = not isinstance(data, list)
    rows = [data] if one else data
    if not contract.accepted.named and len(fields) > 1:
        wrong = [i for i, row in enumerate(rows) if not isinstance(row, list)]
        if wrong:
            raise _refused(f"/{form}/{wrong[0]}", "Expected a list.")
        cells = zip_longest(*rows)
        return {str(i): list(cell) for i, cell in enumerate(cells)}, len(rows), _Records(form)
    required = [field for field in fields if field.required] or list(fields)
    if len(required) > 1:
        raise _refused(f"/{form}", "Expected an object with a list for each column.")
    (only,) = required[:1]
    single = isinstance(only.type, TensorOf) and one
    return {only.name: rows}, len(rows), _Bare(form, one and not single)


def _refused(pointer: str, message: str) -> InvalidInput:
    return InvalidInput((Violation(pointer=pointer, message=message),))
