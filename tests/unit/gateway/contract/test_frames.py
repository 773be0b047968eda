"""What frames are made of, and that MLflow and pandas take them for what they are."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.models.utils import _enforce_schema
from mlflow.types.schema import AnyType, Array, Map, Object, Property, Schema

from gateway.contract import Contract, Frame
from tests.unit.gateway.contract.signatures import body, column, contract, model_input, tensor


def only(model: Contract, value: Any) -> Frame:
    ((places, frame),) = model.parse(body(value)).frames
    assert places == range(frame.rows)
    return frame


def seen_by_model(columns: list[Any], value: Any) -> pd.DataFrame:
    """The DataFrame after MLflow's enforcement."""
    return _enforce_schema(model_input(only(contract(columns), value)), Schema(columns))


@pytest.mark.parametrize(
    ("kind", "value", "dtype"),
    [("boolean", True, "bool"), ("integer", 1.0, "int32"), ("long", 2**62 + 1, "int64"),
     ("float", 1, "float32"), ("double", 1, "float64"), ("datetime", "2020-01-01", "M8[ns]")],
)  # fmt: skip
def test_columns_have_exact_dtypes(kind: str, value: Any, dtype: str) -> None:
    """A column of plain scalars is an array of the dtype that MLflow wants."""
    frame = only(contract([column(kind, "x")]), [{"x": value}] * 2)
    (made,) = frame.columns
    assert isinstance(made, np.ndarray)
    assert made.dtype == np.dtype(dtype)
    assert seen_by_model([column(kind, "x")], [{"x": value}] * 2)["x"].dtype == np.dtype(dtype)


def test_datetimes_are_utc_to_the_nanosecond() -> None:
    """An offset is converted, none is UTC, and no digit is lost."""
    texts = ["2020-01-01T00:00:00.123456789Z", "2020-01-01T01:30+01:30", "2019-12-31T23:00-01:00"]
    frame = only(contract([column("datetime", "x")]), [{"x": text} for text in texts])
    midnight = np.datetime64("2020-01-01", "ns")
    want = [np.datetime64("2020-01-01T00:00:00.123456789"), midnight, midnight]
    assert list(frame.columns[0]) == want


@pytest.mark.parametrize("missing", [{}, {"x": None}])
@pytest.mark.parametrize(
    ("type_", "value"),
    [("float", 0.5), ("double", 0.5), ("string", "a"), ("binary", "YQ=="),
     ("datetime", "2020-01-01"), (Array("long"), [1]), (Array("integer"), [1]),
     (Object([Property("p", "float")]), {"p": 0.5}), (Map("string"), {"a": "b"})],
)  # fmt: skip
def test_nulls_share_a_frame(type_: Any, value: Any, missing: dict[str, None]) -> None:
    """Of an optional column that takes null, rows with and without it travel together."""
    columns = [column("long", "n"), column(type_, "x", required=False)]
    made = seen_by_model(columns, [{"n": 1, "x": value}, {"n": 2, **missing}])
    assert pd.isna(made["x"][1])
    assert len(made) == 2


@pytest.mark.parametrize("type_", ["boolean", "double", "float", "string", "datetime", Map("long")])
def test_what_no_row_of_a_request_has_is_not_there(type_: Any) -> None:
    """An optional column is absent where all rows leave it out, and null where one has it or says
    null; a request with it and one without never share a call."""
    columns = [column("long", "n"), column(type_, "x", required=False)]
    assert list(seen_by_model(columns, [{"n": 1}, {"n": 2}])) == ["n"]
    assert pd.isna(seen_by_model(columns, [{"n": 1}, {"n": 2, "x": None}])["x"]).all()
    model = contract(columns)
    absent, null = only(model, {"n": 1}), only(model, {"n": 1, "x": None})
    assert absent.key != null.key
    assert absent.key == only(model, [{"n": 2}]).key


_KINDS: dict[str, Any] = {
    "b": ("boolean", [True, False]), "d": ("double", [0.5, 2.0]), "l": ("long", [1, 2**53 + 1]),
    "s": ("string", ["a", ""]), "t": ("datetime", ["2020-01-01", "2021-01-01T12:00"]),
    "y": ("binary", ["YQ==", ""]), "a": (AnyType(), [1, 0.5, "a", True, {"k": 1}, [1]]),
    "m": (Map("long"), [{}, {"k": 1}]),
}  # fmt: skip
_OPTIONAL = [column(type_, name, required=False) for name, (type_, _) in _KINDS.items()]
_requests = st.lists(
    st.fixed_dictionaries(
        {"n": st.integers(0, 9)},
        optional={name: st.none() | st.sampled_from(cells) for name, (_, cells) in _KINDS.items()},
    ),
    min_size=1,
    max_size=3,
)


def _seen(frame: Frame, schema: Schema) -> list[Any]:
    """What a model sees of each row: its columns, their types, and the values with theirs."""
    table = _enforce_schema(model_input(frame), schema)
    values = [[table[name].iloc[i] for name in table] for i in range(len(table))]
    types = [(name, str(table[name].dtype)) for name in table]
    return [(types, [(type(value), repr(value)) for value in row]) for row in values]


@settings(max_examples=60)
@given(st.lists(_requests, min_size=2, max_size=4))
def test_a_request_is_the_same_alone_and_in_company(requests: list[Any]) -> None:
    """Whichever requests share a call, a model sees of each what it would see of it alone."""
    columns = [column("long", "n"), *_OPTIONAL]
    model, schema = contract(columns), Schema(columns)
    frames = [frame for each in requests for _, frame in model.parse(body(each)).frames]
    for key in {frame.key for frame in frames}:
        company = [frame for frame in frames if frame.key == key]
        alone = [row for frame in company for row in _seen(frame, schema)]
        assert _seen(Frame.concat(company), schema) == alone


@settings(max_examples=60)
@given(_requests)
def test_a_row_that_becomes_a_dict_is_the_same_alone_and_in_company(rows: list[Any]) -> None:
    """Where MLflow makes dicts of a table, each row has what it has in a request of its own: what
    was sent, and nothing else."""
    columns = [column("long", "n"), *_OPTIONAL]
    model, schema = dataclasses.replace(contract(columns), rows_are_dicts=True), Schema(columns)
    for places, frame in model.parse(body(rows)).frames:
        assert set(frame.names) <= {"n"} | {k for k, v in rows[places[0]].items() if v is not None}
        for place, seen in zip(places, _seen(frame, schema), strict=True):
            ((_, one),) = model.parse(body(rows[place])).frames
            assert (one.key, _seen(one, schema)) == (frame.key, [seen])


@pytest.mark.parametrize("kind", ["integer", "long"])
def test_integers_take_no_null(kind: str) -> None:
    """Rows that lack an optional integer travel apart, without the column, in their places."""
    model = contract([column("string", "s"), column(kind, "n", required=False)])
    rows = [{"s": "a", "n": 1}, {"s": "b"}, {"s": "c", "n": None}, {"s": "d", "n": 4}]
    (with_n, first), (without, second) = model.parse(body(rows)).frames
    assert (list(with_n), list(without)) == ([0, 3], [1, 2])
    assert (first.names, second.names) == (("s", "n"), ("s",))
    assert first.key != second.key


_CELLS: list[tuple[Any, list[Any]]] = [
    ("boolean", [True, None, False]),
    ("double", [0.5, None]),
    ("string", ["a", None, "b"]),
    ("datetime", ["2020-01-01", None]),
    ("binary", ["YQ==", None]),
    (AnyType(), [2**60 + 1, 0.5, None, 7, True, "a", {"a": [1]}, 2**70, [1, 2]]),
]


@pytest.mark.parametrize(("type_", "cells"), _CELLS)
def test_neighbours_change_neither_a_value_nor_its_column_s_type(
    type_: Any, cells: list[Any]
) -> None:
    """What the model sees of a row is the same alone and in company."""
    columns = [column("long", "n"), column(type_, "x", required=False)]
    rows = [{"n": n, "x": cell} for n, cell in enumerate(cells)]
    for places, frame in contract(columns).parse(body(rows)).frames:
        together = _enforce_schema(model_input(frame), Schema(columns))["x"]
        for place, value in zip(places, map(together.get, range(len(together))), strict=True):
            ((_, one),) = contract(columns).parse(body(rows[place])).frames
            assert one.key == frame.key
            alone = _enforce_schema(model_input(one), Schema(columns))["x"]
            assert (alone.dtype, type(alone[0])) == (together.dtype, type(value))
            assert alone[0] == value or (pd.isna(alone[0]) and pd.isna(value))


def test_a_missing_text_is_what_pandas_has_for_it() -> None:
    """A scikit-learn pipeline that was fitted to a table with missing texts knows them again."""
    fitted_to = pd.DataFrame({"x": ["a", None]})["x"]
    columns = [column("string", "x", required=False), column("long", "n")]
    made = seen_by_model(columns, {"n": 1, "x": None})["x"]
    assert type(made[0]) is type(fitted_to[1]) is float


@pytest.mark.parametrize("kind", ["boolean", "string", "double"])
def test_both_ways_to_read_a_row_give_one_key(kind: str) -> None:
    """A plain row, and one that goes the long way because of its form, may share a call."""
    model = contract([column("long", "n"), column(kind, "x", required=False)])
    cell = {"boolean": True, "string": "a", "double": 0.5}[kind]
    plain = only(model, [{"n": 1, "x": cell}])
    wrapped = only(model, {"inputs": [{"n": 1, "x": cell}]})
    assert plain.key == wrapped.key


def test_a_row_of_nothing_is_a_row() -> None:
    """Where all columns are optional and absent, one of them keeps the rows alive."""
    columns = [column("long", "n", required=False), column("double", "x", required=False)]
    made = seen_by_model(columns, [{}, {}])
    assert len(made) == 2
    assert made["x"].isna().all()


def test_nested_values_pass_enforcement_unchanged() -> None:
    """Nested numbers and dates reach the model as the types the signature says."""
    inner = Object([
        Property("i", "integer"), Property("f", "float"), Property("d", "double"),
        Property("when", "datetime"), Property("ints", Array("integer")),
        Property("days", Array("datetime")), Property("o", "long", required=False),
    ])  # fmt: skip
    columns = [column(Array(inner), "x")]
    sent = {"i": 1, "f": 0.5, "d": 2, "when": "2020-01-01", "ints": [1, 2], "days": ["2020-01-01"],
            "o": None}  # fmt: skip
    got = seen_by_model(columns, {"x": [sent]})["x"][0][0]
    assert (type(got["i"]), type(got["f"])) == (np.int32, np.float32)
    assert isinstance(got["d"], float)
    assert got["when"] == pd.Timestamp("2020-01-01")
    assert got["ints"].dtype == np.int32
    assert got["days"].dtype == np.dtype("M8[ns]")
    assert got["o"] is None


def test_type_hints_get_plain_values() -> None:
    """Models made from type hints get Python's own types, whole numbers of a double as floats, and
    moments with the offset that they were sent with."""
    made_of = Object(
        [Property("f", "float"), Property("when", "datetime"), Property("b", "binary")]
    )
    model = contract([column(made_of)], hints=True)
    frame = only(model, [{"f": 1, "when": "2020-01-01T00:00Z", "b": "YQ=="}])
    assert frame.layout == "values"
    (value,) = frame.columns[0]
    assert value == {"f": 1.0, "when": dt.datetime(2020, 1, 1, tzinfo=dt.UTC), "b": b"a"}
    assert type(value["f"]) is float
    (value,) = only(model, [{"when": "2020-01-01"}]).columns[0]
    assert value == {"when": dt.datetime(2020, 1, 1)}
    assert type(value["when"]) is dt.datetime


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("bool", True), ("int8", -128), ("uint64", 2**64 - 1), ("float16", 0.5), ("float32", 1),
     ("str", "a"), ("bytes", "YQ=="), ("object", {"a": [1]}), ("datetime64[s]", "2020-01-01")],
)  # fmt: skip
def test_tensors_have_exact_dtypes(dtype: str, value: Any) -> None:
    """Rows of a tensor are stacked into an array that MLflow takes as it is."""
    spec = tensor(dtype, (-1, 2))
    frame = only(contract([spec]), [[value, value], [value, value]])
    made = _enforce_schema(frame.columns[0], Schema([spec]))
    assert made.shape == (2, 2)


def test_free_dimensions_travel_by_shape() -> None:
    """Rows of different inner shapes are in different frames."""
    frames = contract([tensor("int64", (-1, -1))]).parse(body([[1], [1, 2], [3]])).frames
    assert [list(places) for places, _ in frames] == [[0, 2], [1]]
    assert [frame.columns[0].shape for _, frame in frames] == [(2, 1), (1, 2)]


def test_fixed_first_dimension_makes_whole_frames() -> None:
    """A fixed first dimension makes frames of that many rows, which neither join nor split."""
    frames = contract([tensor("int64", (2, 1))]).parse(body([[1], [2], [3], [4]])).frames
    assert [frame.rows for _, frame in frames] == [2, 2]
    with pytest.raises(ValueError, match="different keys"):
        Frame.concat([frame for _, frame in frames])
    with pytest.raises(ValueError, match="together"):
        frames[0][1].slice(0, 1)


def test_concat_and_slice_are_inverse() -> None:
    """Frames of one key may travel as one, and be taken apart again."""
    columns = [column("double", "x"), column("string", "s"), column("binary", "b", required=False)]
    model = contract(columns)
    one = only(model, [{"x": 1, "s": "a", "b": "YQ=="}])
    two = only(model, [{"x": 2, "s": "b", "b": None}, {"x": 3, "s": "c", "b": "Yg=="}])
    both = Frame.concat([one, two])
    assert both.rows == 3
    assert both.columns[2] == [b"a", None, b"b"]
    assert Frame.concat([one]) is one
    back = both.slice(1, 3)
    assert [list(column) for column in back.columns] == [list(column) for column in two.columns]
    assert both.slice(0, 3) is both
    assert len(model_input(both)) == 3


def test_unnamed_columns_are_numbered() -> None:
    """Several unnamed columns become columns 0, 1, …"""
    frame = only(contract([column("long"), column("string")]), [[1, "a"], [2, "b"]])
    assert frame.names == (0, 1)
    assert list(frame.columns[0]) == [1, 2]


def test_nan_is_made_for_missing_numbers_only() -> None:
    """NaN in a frame is always a null of the caller."""
    frame = only(contract([column("double", "x", required=False)]), [{"x": 0}, {"x": None}])
    assert [math.isnan(value) for value in frame.columns[0]] == [False, True]


@pytest.mark.parametrize(
    ("columns", "shapes"),
    [
        ([tensor("float32", (-1, 224, 224, 3))], [(1, 224, 224, 3)]),
        ([tensor("uint8", (4, -1, 512), "a"), tensor("int64", (4,), "b")], [(4, 1, 512), (4,)]),
        ([tensor("float32", (-1, 50_000, 1_000))], None),
        ([tensor("object", (-1, 2))], None),
        ([column("double", "x")], None),
    ],
)
def test_large_tensors_are_made_up_of_zeros(columns: list[Any], shapes: Any) -> None:
    """A model can be asked once although nobody would write such an example; only of tensors."""
    frame = contract(columns).zeros()
    if shapes is None:
        assert frame is None
        return
    assert frame is not None
    assert [np.shape(made) for made in frame.columns] == shapes
    assert frame.rows == shapes[0][0]
    seen = _enforce_schema(model_input(frame), Schema(columns))
    assert (seen if isinstance(seen, dict) else {0: seen}).keys() == set(frame.names)
