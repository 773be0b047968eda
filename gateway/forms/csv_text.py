"""CSV with a header (RFC 4180, UTF-8): read as texts and by the types of the signature.

No type is guessed: "007" is a text where the signature says so, and a number where it says that.
A field that is empty is null, and quoted ("") an empty text; MLflow's route takes pandas' words for
null, too. Lists and objects are JSON within their field.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from gateway.contract import AnswerColumn, Contract, Outputs, Request, Table, Written
from gateway.contract.answer_text import dumped, in_utf8
from gateway.contract.body import read_json
from gateway.contract.columns import Column
from gateway.contract.types import Scalar, TensorOf, Type
from gateway.errors import MalformedBody, MalformedJson

MEDIA_TYPE = b"text/csv"

_HEADER_BYTES = 1024 * 1024
_BOM = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_OTHER_SEPARATORS = frozenset(";\t|")
_PANDAS_NULLS = (
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip
_TEXT = Scalar("string")
_BOOLEANS = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def read(
    contract: Contract,
    body: bytes,
    max_rows: int | None,
    *,
    params: Mapping[str, Any] | None = None,
    as_mlflow: bool = False,
) -> Request:
    """The request; raises `MalformedBody`, `InvalidInput` and `PayloadTooLarge`.

    What is no value of its column's type stays a text, which the contract's check refuses.
    """
    if body.startswith(_UTF_16):
        raise MalformedBody("Send texts in UTF-8.")
    names, table = _texts(body.removeprefix(_BOM), _PANDAS_NULLS if as_mlflow else ("",), as_mlflow)
    types = _types(contract, names)
    if len(names) == 1 and names[0] not in types and set(names[0]) & _OTHER_SEPARATORS:
        raise MalformedBody("The fields of a CSV are separated by commas, and its header has none.")
    columns = {
        name: _typed(table.column(i), types.get(name, _TEXT)) for i, name in enumerate(names)
    }
    came = Table(columns=columns, rows=table.num_rows, params=params or {}, as_mlflow=as_mlflow)
    return contract.take(came, max_rows=max_rows)


def write(contract: Contract, request: Request, outputs: Outputs) -> Written:
    """The answer with a header: what is null or NaN is empty, lists and objects are JSON."""
    import pyarrow as pa
    import pyarrow.csv

    columns = contract.columns(outputs, request.rows, arrays=True)
    sink = pa.BufferOutputStream()
    with in_utf8():
        table = pa.table(list(map(_flat, columns)), names=[column.name for column in columns])
    pyarrow.csv.write_csv(table, sink)
    return Written(body=sink.getvalue().to_pybytes(), media_type=MEDIA_TYPE + b"; charset=utf-8")


def _types(contract: Contract, names: list[str]) -> dict[str, Type]:
    """The types of the columns that the signature knows; without names there, by position."""
    fields = contract.accepted.fields
    if contract.accepted.named:
        return {field.name: field.type for field in fields}
    if len(fields) == 1:
        return dict.fromkeys(names, fields[0].type)
    return {name: field.type for name, field in zip(names, fields, strict=False)}


def _flat(column: AnswerColumn) -> Any:
    """As numbers or as texts, for a file has nothing else."""
    import pyarrow as pa

    type_, values = column.type, column.values
    if isinstance(type_, Scalar):
        numbers = {"long": pa.int64(), "integer": pa.int64(), "boolean": pa.bool_()}
        if type_.kind in ("double", "float"):
            numbers[type_.kind] = pa.float64() if type_.kind == "double" else pa.float32()
        return pa.array(values, type=numbers.get(type_.kind, pa.string()), from_pandas=True)
    return pa.array([_field(value) for value in values], type=pa.string())


def _field(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return dumped(value).decode()


def _texts(body: bytes, nulls: tuple[str, ...], quoted_nulls: bool) -> tuple[list[str], Any]:
    """The header, and all below it as texts and nulls."""
    import pyarrow as pa
    import pyarrow.csv

    body = body if body.endswith((b"\n", b"\r")) else body + b"\n"
    names = _header(body)
    wrong: list[int | None] = []

    def refuse(row: Any) -> str:
        wrong.append(row.number)
        return "error"

    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(body),
            # In one thread, which knows a row's number.
            read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=1 << 24),
            parse_options=pyarrow.csv.ParseOptions(
                newlines_in_values=True, invalid_row_handler=refuse
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=list(nulls),
                strings_can_be_null=True,
                quoted_strings_can_be_null=quoted_nulls,
            ),
        )
    except (pa.ArrowException, UnicodeDecodeError) as error:
        if wrong:
            detail = f"Line {wrong[0]} has another number of fields than the header."
            raise MalformedBody(detail) from error
        raise MalformedBody("The body is no CSV of UTF-8 with a header.") from error
    return names, table


def _header(body: bytes) -> list[str]:
    try:
        text = io.StringIO(body[:_HEADER_BYTES].decode("utf-8", "ignore"), newline="")
        names = next(csv.reader(text), [])
    except csv.Error as error:
        raise MalformedBody("The first line is no header of a CSV.") from error
    if not names or len(set(names)) < len(names):
        raise MalformedBody("The first line must be a header, with another name for each column.")
    return names


def _typed(texts: Any, type_: Type) -> Column:
    """The values that the texts are by their type; all of the texts where some are none."""
    import pyarrow as pa

    kind = _kind(type_)
    try:
        match kind:
            case "f":
                return _masked(texts, texts.cast(pa.float64()))
            case "i":
                return _whole(texts)
            case "b":
                return [
                    None if cell is None else _BOOLEANS.get(cell, cell) for cell in _list(texts)
                ]
            case "json":
                return [None if cell is None else _read_json(cell) for cell in _list(texts)]
    except pa.ArrowException:
        return _one_by_one(texts, kind)
    return _list(texts)


def _kind(type_: Type) -> str:
    if isinstance(type_, TensorOf):
        # Wider ones have a column for each number, or lists in one.
        plain = {"f": "f", "i": "i", "u": "i", "b": "b"} if len(type_.inner) < 2 else {}
        return plain.get(type_.dtype.kind, "json" if type_.inner else "text")
    if not isinstance(type_, Scalar):
        return "json"
    return {"double": "f", "float": "f", "long": "i", "integer": "i", "boolean": "b"}.get(
        type_.kind, "text"
    )


def _whole(texts: Any) -> np.ndarray:
    """Whole numbers; as pandas writes those of a column with nulls ("1.0"), too."""
    import pyarrow as pa

    try:
        return _masked(texts, texts.cast(pa.int64()))
    except pa.ArrowException:
        return _masked(texts, texts.cast(pa.float64()))


def _one_by_one(texts: Any, kind: str) -> list[Any]:
    """The same of each text alone, for some aren't: so that those are what is refused."""

    def value(text: str) -> Any:
        if "_" in text or not text.isascii():  # numbers to Python alone
            return text
        for number in (int, float) if kind == "i" else (float,):
            try:
                return number(text)
            except ValueError:
                continue
        return text

    return [None if cell is None else value(cell) for cell in _list(texts)]


def _masked(texts: Any, made: Any) -> np.ndarray:
    if not texts.null_count:
        return np.asarray(made.to_numpy())
    return np.ma.MaskedArray(made.fill_null(0).to_numpy(), texts.is_null().to_numpy())


def _list(texts: Any) -> list[Any]:
    return list(texts.to_pylist())


def _read_json(text: str) -> Any:
    """The JSON that a field is; a text that is none stays one."""
    try:
        return read_json(text.encode("utf-8"))
    except MalformedJson:
        return text
