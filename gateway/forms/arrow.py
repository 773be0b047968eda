"""Tables of Apache Arrow (IPC stream and file) and Parquet: columns as they are, without a row.

PyArrow is imported where a table is read or written: a gateway without tables does without it. What
NumPy has a column for is taken as one (numbers, moments), nulls as a mask; all else becomes Python
values a column at a time. Answers have Arrow's type for what the signature says; what is declared
as anything is JSON text.
"""

from __future__ import annotations

import contextlib
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from datetime import date, time
from decimal import Decimal
from typing import Any, TypeGuard
from uuid import UUID

import numpy as np
import orjson

from gateway.contract import AnswerColumn, Contract, Outputs, Request, Table, Written
from gateway.contract.answer_text import dumped, in_utf8
from gateway.contract.columns import Column
from gateway.contract.text_formats import read_base64
from gateway.contract.types import (
    AnyValue,
    ArrayOf,
    MapOf,
    ObjectOf,
    Scalar,
    TensorOf,
    TupleOf,
    Type,
)
from gateway.errors import MalformedBody, NotAcceptable, PayloadTooLarge, too_many_rows

STREAM = b"application/vnd.apache.arrow.stream"
FILE = b"application/vnd.apache.arrow.file"
PARQUET = b"application/vnd.apache.parquet"

_INDEX = b"pandas"
_ROOM_BYTES, _ROOM_TIMES = 64 * 1024 * 1024, 8
_WIDEST_BYTES = 8
_OF_JSON = (str, int, float)  # truth values are whole numbers of Python's


def read(
    contract: Contract,
    body: bytes,
    max_rows: int | None,
    *,
    media_type: bytes,
    params: Mapping[str, Any] | None = None,
    as_mlflow: bool = False,
) -> Request:
    """The request; raises `MalformedBody`, `InvalidInput` and `PayloadTooLarge`.

    Of more rows than `max_rows` none is made: a few bytes may stand for any number of them. So may
    they for long texts and lists, by compression and by dictionaries: what a table is without these
    may be `_ROOM_TIMES` as large as the body, or `_ROOM_BYTES`.
    """
    with _refusing(media_type):
        table = _READ[media_type](body, max_rows)
        _require_room(table.nbytes, body)
        table.validate(full=True)
        _require_room(sum(map(_plain_bytes, table.columns)), body)
        names = _own_names(table)
        anything = _free(contract, names)
        columns = {
            name: (_json_values if name in anything else _column)(table.column(name))
            for name in names
        }
    came = Table(columns=columns, rows=table.num_rows, params=params or {}, as_mlflow=as_mlflow)
    return contract.take(came, max_rows=max_rows)


def write(contract: Contract, request: Request, outputs: Outputs, *, media_type: bytes) -> Written:
    """The answer as a table; raises `NotAcceptable` for what has no column in one."""
    table = answer_table(contract.columns(outputs, request.rows, arrays=True))
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    if media_type == PARQUET:
        import pyarrow.parquet

        pyarrow.parquet.write_table(table, sink)
    else:
        made = pa.ipc.new_stream if media_type == STREAM else pa.ipc.new_file
        with made(sink, table.schema) as writer:
            writer.write_table(table)
    return Written(body=sink.getvalue().to_pybytes(), media_type=media_type)


def answer_table(columns: list[AnswerColumn]) -> Any:
    """The columns as a `pyarrow.Table`; raises `NotAcceptable`."""
    import pyarrow as pa

    try:
        with in_utf8():
            arrays = [_array(column) for column in columns]
            return pa.table(arrays, names=[column.name for column in columns])
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        raise NotAcceptable("The answer has no form as a table; ask for JSON.") from None


@contextlib.contextmanager
def _refusing(media_type: bytes) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    # Whatever a reader says about bytes that it can't read.
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        name = media_type.decode("ascii")
        raise MalformedBody(f"The body is no table of the type {name}.") from error


def _from_stream(body: bytes, max_rows: int | None) -> Any:
    import pyarrow as pa

    with pa.ipc.open_stream(body) as reader:
        return pa.Table.from_batches(_bounded(reader, max_rows), reader.schema)


def _from_file(body: bytes, max_rows: int | None) -> Any:
    import pyarrow as pa

    with pa.ipc.open_file(body) as reader:
        batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        return pa.Table.from_batches(_bounded(batches, max_rows), reader.schema)


def _from_parquet(body: bytes, max_rows: int | None) -> Any:
    import pyarrow as pa
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(pa.BufferReader(body)) as file:
        if max_rows is not None and file.metadata.num_rows > max_rows:
            raise too_many_rows(max_rows)
        _require_room(_declared_bytes(file.metadata), body)
        return file.read(use_threads=False)


def _declared_bytes(metadata: Any) -> int:
    """What a Parquet file says of its columns' sizes, and of how many elements are in their lists,
    of which any number is a few bytes."""
    size = 0
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        for j in range(group.num_columns):
            column = group.column(j)
            each = _WIDEST_BYTES if "." in column.path_in_schema else 1
            size += max(column.total_uncompressed_size, column.num_values * each)
    return size


def _plain_bytes(chunked: Any) -> int:
    """The bytes of a column whose elements are beside each other; raises MalformedBody for types
    of which a few bytes are any number of elements."""
    import pyarrow as pa
    import pyarrow.compute as pc

    type_ = chunked.type
    if _repeats(type_) or any(_repeats(t) or _shares(t) for t in _inner_types(type_)):
        raise MalformedBody(f"The Arrow type {type_} isn't taken: its elements share their bytes.")
    if pa.types.is_dictionary(type_):
        if pa.types.is_primitive(type_.value_type):
            return len(chunked) * _WIDEST_BYTES
        lengths = [
            pc.sum(pc.take(pc.binary_length(each.dictionary), each.indices)).as_py()
            for each in chunked.chunks
        ]
        return sum(filter(None, lengths))
    if _shares(type_) and not pa.types.is_null(type_):
        return sum(map(_viewed_bytes, chunked.chunks))
    return int(chunked.nbytes)


def _viewed_bytes(views: Any) -> int:
    """How long an array's texts are together, of which several may be the same bytes: a view is
    four numbers of 32 bits, and the first of them its length (Arrow's columnar format)."""
    numbers = np.frombuffer(views.buffers()[1], "<i4")
    return int(numbers[0::4][views.offset : views.offset + len(views)].sum(dtype=np.int64))


def _inner_types(type_: Any) -> Iterator[Any]:
    """The types within a type."""
    import pyarrow as pa

    if pa.types.is_dictionary(type_):
        yield type_.value_type
        yield from _inner_types(type_.value_type)
    elif pa.types.is_nested(type_):
        for i in range(type_.num_fields):
            yield type_.field(i).type
            yield from _inner_types(type_.field(i).type)


def _repeats(type_: Any) -> bool:
    """Whether no column of the type is taken."""
    import pyarrow as pa

    kinds = pa.types
    is_empty = (kinds.is_struct(type_) and not type_.num_fields) or (
        kinds.is_fixed_size_list(type_) and not type_.list_size
    )
    is_view = kinds.is_list_view(type_) or kinds.is_large_list_view(type_)
    return bool(is_empty or is_view or kinds.is_run_end_encoded(type_))


def _shares(type_: Any) -> bool:
    """Whether elements may have no bytes of their own: as columns these are counted."""
    import pyarrow as pa

    kinds = pa.types
    is_view = kinds.is_string_view(type_) or kinds.is_binary_view(type_)
    return bool(is_view or kinds.is_null(type_) or kinds.is_dictionary(type_))


def _require_room(size: int, body: bytes) -> None:
    """Raise PayloadTooLarge for a table that is much larger than what came."""
    if size > max(_ROOM_BYTES, _ROOM_TIMES * len(body)):
        raise PayloadTooLarge(
            f"The table would be {size} bytes, uncompressed and without dictionaries; the limit is "
            f"{_ROOM_BYTES // 2**20} MiB, or {_ROOM_TIMES} times its body."
        )


def _bounded(batches: Any, max_rows: int | None) -> Iterator[Any]:
    rows = 0
    for batch in batches:
        rows += batch.num_rows
        if max_rows is not None and rows > max_rows:
            raise too_many_rows(max_rows)
        yield batch


_READ: dict[bytes, Callable[[bytes, int | None], Any]] = {
    STREAM: _from_stream,
    FILE: _from_file,
    PARQUET: _from_parquet,
}


def _own_names(table: Any) -> list[str]:
    """The columns without those that are a DataFrame's index, which pandas writes beside them."""
    names = list(table.column_names)
    if len(set(names)) < len(names):
        raise MalformedBody("Two columns of the table have the same name.")
    told = orjson.loads((table.schema.metadata or {}).get(_INDEX, b"{}"))
    index = told.get("index_columns") if isinstance(told, dict) else None
    if not isinstance(index, list):
        return names
    return [name for name in names if name not in index]


def _free(contract: Contract, names: list[str]) -> set[str]:
    """The columns that are declared as anything, or by nobody: any value that JSON has."""
    if contract.untyped:
        return set(names)
    rows = contract.accepted
    declared = [field.name for field in rows.fields] if rows.named else names
    pairs = zip(declared, rows.fields, strict=False)
    return {name for name, field in pairs if isinstance(field.type, AnyValue)}


def _column(chunked: Any) -> Column:
    """A column as NumPy has it, or as Python's values."""
    import pyarrow as pa

    type_ = chunked.type
    if pa.types.is_dictionary(type_):
        chunked = chunked.cast(type_.value_type)
        type_ = chunked.type
    if pa.types.is_fixed_size_list(type_) and not chunked.null_count:
        whole = _whole(chunked)
        inner = _column(pa.chunked_array([whole.flatten()]))
        if _is_of_numbers(inner) and not np.ma.is_masked(inner):
            return inner.reshape(len(whole), type_.list_size, *inner.shape[1:])
        return _json_values(chunked)
    if pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_boolean(type_):
        return _masked(chunked, False if pa.types.is_boolean(type_) else 0)
    if pa.types.is_timestamp(type_) or pa.types.is_date(type_):
        return _moments(chunked)
    if pa.types.is_decimal(type_):
        return _column(chunked.cast(pa.float64()))
    return _json_values(chunked) if pa.types.is_nested(type_) else list(chunked.to_pylist())


def _is_of_numbers(column: Column) -> TypeGuard[np.ndarray]:
    """Whether it has some, or truth values, in an array."""
    return isinstance(column, np.ndarray) and column.size > 0 and column.dtype.kind in "biuf"


def _json_values(chunked: Any) -> list[Any]:
    """A column's cells as JSON has them: what it has no word for as the text or the number that is
    sent for it; raises MalformedBody where it has none at all."""
    values: list[Any] = chunked.to_pylist(maps_as_pydicts="strict")
    if _is_json(chunked.type):
        return values
    try:
        return list(map(_json_value, values))
    except TypeError:
        name = str(chunked.type)
        raise MalformedBody(f"The Arrow type {name} isn't taken: JSON has no such value.") from None


def _is_json(type_: Any) -> bool:
    """Whether all values of the type are values of JSON."""
    import pyarrow as pa

    kinds = pa.types
    if kinds.is_map(type_) and not _is_text(type_.key_type):
        return False
    if kinds.is_nested(type_):
        return all(_is_json(type_.field(i).type) for i in range(type_.num_fields))
    is_number = kinds.is_integer(type_) or kinds.is_floating(type_) or kinds.is_boolean(type_)
    return bool(is_number or _is_text(type_) or kinds.is_null(type_))


def _is_text(type_: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def _json_value(value: Any) -> Any:
    """Raises TypeError for what JSON has no form for."""
    if value is None or isinstance(value, _OF_JSON):
        return value
    if isinstance(value, list):
        return list(map(_json_value, value))
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {name: _json_value(each) for name, each in value.items()}
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, date | time):  # moments are dates, too
        return value.isoformat()
    if isinstance(value, bytes):
        return b64encode(value).decode("ascii")
    if isinstance(value, UUID):
        return str(value)
    raise TypeError


def _whole(chunked: Any) -> Any:
    import pyarrow as pa

    whole = chunked.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], whole.type)
    return whole


def _masked(chunked: Any, empty: Any) -> np.ndarray:
    if not chunked.null_count:
        return np.asarray(chunked.to_numpy())
    gone = chunked.is_null().to_numpy()
    return np.ma.MaskedArray(chunked.fill_null(empty).to_numpy(), gone)


def _moments(chunked: Any) -> np.ndarray:
    """As naive UTC in the unit that they have; a null is NaT."""
    import pyarrow as pa

    type_ = chunked.type
    if pa.types.is_date(type_):
        chunked, type_ = chunked.cast(pa.date32()), pa.timestamp("s")
        chunked = chunked.cast(type_)
    counts = chunked.cast(pa.int64()).to_numpy() if not chunked.null_count else None
    if counts is not None:
        return np.asarray(counts, np.int64).view(f"M8[{type_.unit}]")
    gone = chunked.is_null().to_numpy()
    filled = chunked.cast(pa.int64()).fill_null(0).to_numpy().view(f"M8[{type_.unit}]").copy()
    filled[gone] = np.datetime64("NaT")
    return np.asarray(filled)


def _array(column: AnswerColumn) -> Any:
    """A column of an answer, whose values are those that JSON would have."""
    import pyarrow as pa

    type_, values = column.type, column.values
    if isinstance(type_, TensorOf):
        return _tensors(type_, values)
    how = _TO_ARROW.get(type_.kind) if isinstance(type_, Scalar) else None
    if how is not None:
        values = [None if value is None else how(value) for value in values]
    if isinstance(type_, AnyValue):
        values = [None if value is None else _json_text(value) for value in values]
    return pa.array(values, type=_arrow_type(type_), from_pandas=False)


def _tensors(type_: TensorOf, values: list[Any]) -> Any:
    import pyarrow as pa

    if type_.dtype.kind not in "biuf" or not values:
        return pa.array(values, type=_arrow_type(type_))
    array = np.asarray(values, type_.dtype)
    made = pa.array(array.reshape(-1))
    for size in reversed(array.shape[1:]):
        made = pa.FixedSizeListArray.from_arrays(made, size)
    return made


def _json_text(value: Any) -> str:
    return dumped(value).decode()


_TO_ARROW: dict[str, Callable[[Any], Any]] = {
    "binary": read_base64,
    "datetime": lambda text: np.datetime64(text, "ns"),
}


def _arrow_type(type_: Type) -> Any:
    import pyarrow as pa

    match type_:
        case Scalar(kind):
            return {
                "boolean": pa.bool_(),
                "integer": pa.int32(),
                "long": pa.int64(),
                "float": pa.float32(),
                "double": pa.float64(),
                "string": pa.string(),
                "binary": pa.binary(),
                "datetime": pa.timestamp("ns"),
            }[kind]
        case ArrayOf(items):
            return pa.list_(_inner_type(items))
        case MapOf(values):
            return pa.map_(pa.string(), _inner_type(values))
        case ObjectOf(fields):
            return pa.struct([(field.name, _inner_type(field.type)) for field in fields])
        case TensorOf(dtype, shape):
            made = pa.string() if dtype.kind not in "biuf" else pa.from_numpy_dtype(dtype)
            for _ in shape[1:]:
                made = pa.list_(made)
            return made
        case TupleOf() | AnyValue():
            return pa.string()


def _inner_type(type_: Type) -> Any:
    """Within lists and objects bytes and moments stay the texts that JSON has for them."""
    import pyarrow as pa

    if isinstance(type_, Scalar) and type_.kind in _TO_ARROW:
        return pa.string()
    return _arrow_type(type_)
