"""What models return -> the JSON answer, and what is refused on the way."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from jsonschema import Draft202012Validator
from mlflow.types.schema import AnyType, Array, Map, Object, Property

from gateway.contract import Contract
from gateway.contract.outputs import with_columns
from gateway.errors import InvalidModelOutput
from tests.unit.gateway.contract.signatures import column, contract, tensor

NAN = float("nan")
INPUT = [column("long", "n")]


def answer(model: Contract, output: Any, rows: int) -> Any:
    """The answer, which is valid under the response schema."""
    made = json.loads(model.render([(range(rows), output)], rows))
    Draft202012Validator(model.response_schema()).validate(made)
    return made


def refused(model: Contract, output: Any, rows: int) -> str:
    with pytest.raises(InvalidModelOutput) as caught:
        model.render([(range(rows), output)], rows)
    return caught.value.detail


TWO = [column("double", "x"), column("long", "y")]
TENSORS = [tensor("float32", (-1, 2), "a"), tensor("int64", (-1,), "b")]
SHAPES: list[tuple[Any, Any, Any]] = [
    (TWO, ("columns", ["y", "x"], [np.array([1]), np.array([0.5])]), [{"x": 0.5, "y": 1}]),
    (TWO, ("columns", ["z", "y", "x"], [["?"], [1], [0.5]]), [{"x": 0.5, "y": 1}]),
    (TWO, ("columns", ["0", "1"], [[0.5], [1]]), [{"x": 0.5, "y": 1}]),
    (TWO, ("values", np.array([[0.5, 1.0]])), [{"x": 0.5, "y": 1}]),
    (TWO, ("values", [[0.5, 1]]), [{"x": 0.5, "y": 1}]),
    (TWO, ("values", [{"x": 1, "y": 2.0, "z": "?"}]), [{"x": 1.0, "y": 2}]),
    ([column("string", "t")], ("values", ["a", "b"]), [{"t": "a"}, {"t": "b"}]),
    ([column("string", "t")], ("values", np.array(["a"])), [{"t": "a"}]),
    ([column("double", "t")], ("values", np.array([[1.5], [2.5]])), [{"t": 1.5}, {"t": 2.5}]),
    ([column(Array("double"), "t")], ("values", np.ones((1, 2))), [{"t": [1, 1]}]),
    ([column(Map("long"), "t")], ("values", [{"a": 1}]), [{"t": {"a": 1}}]),
    ([column("string")], ("values", ["a"]), ["a"]),
    ([column("long")], ("columns", ["?"], [np.array([3])]), [3]),
    ([column("long")], ("values", np.array([[3], [4]])), [3, 4]),
    ([column(Array("double"))], ("values", np.array([[1.0, 2.0]])), [[1, 2]]),
    ([column(Object([Property("a", "long")]))], ("columns", ["a", "b"], [[1], [2]]), [{"a": 1}]),
    ([column("long"), column("string")], ("columns", ["?", "!"], [[1], ["a"]]), [[1, "a"]]),
    ([tensor("float32", (-1, 2))], ("values", np.array([[0.1, NAN]], "f4")), [[0.1, None]]),
    ([tensor("float32", (-1,))], ("values", np.array([0.1], "f4")), [0.1]),
    ([tensor("int64", (-1, 2))], ("values", [[1, 2]]), [[1, 2]]),
    (TENSORS, ("columns", ["a", "b"], [np.ones((1, 2)), [3]]), [{"a": [1, 1], "b": 3}]),
    (None, ("columns", ["a", "0"], [np.array([NAN]), ["b"]]), [{"a": None, "0": "b"}]),
    (None, ("values", np.array([[1, 2]])), [[1, 2]]),
    (None, ("values", [{"a": {1: np.float32(0.5), "b": b"a"}}, None]),
     [{"a": {"1": 0.5, "b": "YQ=="}}, None]),
    (None, ("values", [2**70, (1, np.datetime64("2020-01-01"))]),
     [2**70, [1, "2020-01-01"]]),
    (None, ("values", np.array(["2020-01", "NaT"], "M8[M]")), ["2020-01-01", None]),
    (None, ("values", [np.datetime64("2020-01-01T00")]), ["2020-01-01T00:00:00"]),
    ([column("long", "x")], ("columns", ["z"], [[1]]), [{"x": 1}]),
    (TWO, ("columns", ["z"], [[{"y": 1, "x": 2}]]), [{"x": 2, "y": 1}]),
]  # fmt: skip


@pytest.mark.parametrize(("outputs", "output", "want"), SHAPES)
def test_shapes_of_outputs(outputs: Any, output: Any, want: Any) -> None:
    """What models return is matched with the declared columns by name, else by position."""
    assert answer(contract(INPUT, outputs), output, len(want)) == want


VALUES: list[tuple[Any, Any, Any]] = [
    ("boolean", np.bool_(True), True), ("long", np.int8(3), 3), ("long", 3.0, 3),
    ("long", np.float32(3), 3),
    ("integer", np.uint64(7), 7), ("double", 3, 3), ("double", np.int64(3), 3), ("float", 0.1, 0.1),
    ("float", np.float32(0.1), 0.1), ("float", np.finfo(np.float32).max, 3.4028235e38),
    ("double", NAN, None), ("double", float("inf"), None), ("double", None, None),
    ("float", np.float32("nan"), None), ("double", pd.NA, None),
    ("string", np.str_("a"), "a"), ("binary", b"a\x00", "YQA="),
    ("binary", bytearray(b"a"), "YQ=="),
    ("datetime", dt.datetime(2020, 1, 1), "2020-01-01T00:00:00"),
    ("datetime", pd.Timestamp("2020-01-01T00:00:00.123456789"), "2020-01-01T00:00:00.123456789"),
    ("datetime", pd.Timestamp("2020-01-01", tz="Europe/Berlin"), "2019-12-31T23:00:00"),
    ("datetime", dt.date(2020, 1, 1), "2020-01-01T00:00:00"),
    ("datetime", np.datetime64("2020-01-01T00:00:00.500"), "2020-01-01T00:00:00.5"),
    (Array("double"), np.array([1.0, NAN]), [1, None]), (Array("string"), ("a", "b"), ["a", "b"]),
    (Array(Array("long")), np.array([[1, 2]]), [[1, 2]]), (Array("double"), [], []),
    (Map("double"), {"a": 1}, {"a": 1}), (AnyType(), {"a": None}, {"a": None}),
    (AnyType(), None, None),
    (Object([Property("a", "long"), Property("b", "long", required=False)]),
     {"a": 1, "z": 2}, {"a": 1}),
    (Object([Property("a", "long", required=False)]), {"a": None}, {"a": None}),
]  # fmt: skip


def _objects(values: list[Any]) -> np.ndarray:
    """An object array of just these values: `np.array` would look into lists."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


@pytest.mark.parametrize("made", [list, _objects])
@pytest.mark.parametrize(("type_", "value", "want"), VALUES)
def test_lossless_values(type_: Any, value: Any, want: Any, made: Any) -> None:
    """Values that are the declared type without loss are written as it."""
    output = ("columns", ["x"], [made([value])])
    assert answer(contract(INPUT, [column(type_, "x")]), output, 1) == [{"x": want}]


@pytest.mark.parametrize(
    ("type_", "value"),
    [("boolean", 1), ("long", True), ("long", 1.5), ("long", "1"), ("long", None), ("long", NAN),
     ("integer", 2**31), ("long", 2**63), ("float", 1e39), ("double", "1"), ("double", True),
     ("double", 10**400), ("string", 1), ("string", None), ("binary", "a"),
     ("datetime", "2020-01-01"), ("datetime", pd.NaT), ("datetime", dt.datetime(1, 1, 1)),
     ("datetime", dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))),
     (Array("long"), [None]), (Array("long"), 1), (Array("string"), "ab"), (Map("long"), {1: 1}),
     (Object([Property("a", "long")]), {}), (Object([Property("a", "long")]), 3)],
)  # fmt: skip
def test_other_values_are_refused(type_: Any, value: Any) -> None:
    """What is not of the declared type is the model's error, told without the value."""
    model = contract(INPUT, [column(type_, "x")])
    assert "is" in refused(model, ("columns", ["x"], [[value]]), 1)


def test_half_a_character_is_no_text() -> None:
    """It is a string of Python's, and nothing that UTF-8 can say."""
    model = contract(INPUT, [column("string", "x")])
    assert "half a character" in refused(model, ("columns", ["x"], [["\ud800"]]), 1)


@pytest.mark.parametrize("value", [None, NAN, pd.NA, pd.NaT])
@pytest.mark.parametrize(
    "type_", ["long", "string", "boolean", "datetime", Array("long"), Map("long")]
)
def test_missing_values_of_optional_columns(type_: Any, value: Any) -> None:
    """All of pandas' ways to say missing are null in an optional column."""
    model = contract(INPUT, [column(type_, "x", required=False), column("long", "y")])
    got = answer(model, ("columns", ["x", "y"], [[value], [1]]), 1)
    assert got == [{"x": None, "y": 1}]


def test_optional_columns_may_be_absent() -> None:
    """An optional output that the model left out is left out; a required one is missed."""
    model = contract(INPUT, [column("long", "x", required=False), column("long", "y")])
    assert answer(model, ("columns", ["y"], [np.array([1])]), 1) == [{"y": 1}]
    assert "'y'" in refused(model, ("columns", ["x"], [np.array([1])]), 1)


@pytest.mark.parametrize(
    ("output", "want"),
    [
        (("values", [1]), [1]),
        (("values", []), []),
        (("values", np.arange(5)), [0, 1, 2, 3, 4]),
        (("columns", ["x"], [np.array([1, 2, 3])]), [1, 2, 3]),
        (("columns", ["x"], [[]]), []),
    ],
)
@pytest.mark.parametrize("rows", [1, 2])
def test_an_answer_to_one_call_is_as_long_as_it_is(output: Any, want: Any, rows: int) -> None:
    """A forecast, chunks or what a filter leaves are no answer to each row."""
    declared = contract(INPUT, [column("long", "x")])
    assert answer(declared, output, rows) == [{"x": value} for value in want]


@pytest.mark.parametrize(
    "output",
    [("values", np.array(1)), ("values", 5), ("columns", ["x"], [7]),
     ("columns", ["x", "y"], [[1, 2], [1]]), ("columns", [], [])],
)  # fmt: skip
def test_an_answer_has_rows(output: Any) -> None:
    """What is no list, or has columns of different lengths, is refused."""
    refused(contract(INPUT, [column("long", "x")]), output, 2)
    refused(contract(INPUT), output, 2)


def test_answers_of_other_lengths_to_several_calls_follow_each_other() -> None:
    """In the order of the rows; where rows were mixed it can't be told whose is what."""
    model = contract(INPUT, [column("long", "x")])
    parts = [(range(1), ("values", [1, 2])), (range(1, 2), ("values", [])), ([2], ("values", [3]))]
    assert json.loads(model.render(parts, 3)) == [{"x": 1}, {"x": 2}, {"x": 3}]
    mixed = [([0, 2], ("values", [1, 2])), ([1], ("values", [3, 4]))]
    with pytest.raises(InvalidModelOutput, match="one input at a time"):
        model.render(mixed, 3)
    apart = [([0, 2], ("values", [1, 2])), ([1], ("values", [3]))]
    assert json.loads(model.render(apart, 3)) == [{"x": 1}, {"x": 3}, {"x": 2}]


def test_number_of_columns() -> None:
    """Columns without names fit only in the declared number."""
    refused(contract(INPUT, TWO), ("columns", ["a", "b", "c"], [[1], [2], [3]]), 1)
    refused(contract(INPUT, TWO), ("values", [1]), 1)
    refused(contract(INPUT, [column("long")]), ("columns", ["a", "b"], [[1], [2]]), 1)


@pytest.mark.parametrize("names", [["a", "b"], ["1", "0"], ["0", "z"]])
def test_columns_of_other_names_are_not_guessed(names: list[str]) -> None:
    """Which of several declared outputs a column of another name is can't be told."""
    detail = refused(contract(INPUT, TWO), ("columns", names, [[0.5], [1]]), 1)
    assert "'x', 'y'" in detail


@pytest.mark.parametrize("value", [object(), {1, 2}, {(1, 2): 3}, "\ud800", 1j])
def test_what_json_cannot_say(value: Any) -> None:
    """An undeclared output that is nothing in JSON is refused, whatever it is."""
    refused(contract(INPUT), ("values", [value]), 1)


def test_endless_values_are_refused() -> None:
    """A value that contains itself ends in an error of ours."""
    loop: list[Any] = []
    loop.append(loop)
    refused(contract(INPUT), ("values", [loop]), 1)


def test_details_name_the_column_and_never_the_value() -> None:
    """The error says which output and what was declared."""
    detail = refused(contract(INPUT, [column("long", "x")]), ("columns", ["x"], [["s3cret"]]), 1)
    assert "'x'" in detail
    assert "long" in detail
    assert "s3cret" not in detail


def test_parts_are_put_back_in_order() -> None:
    """The answers of several frames stand where their rows stood."""
    model = contract(INPUT, [column("string", "t")])
    parts = [([2, 0], ("values", ["c", "a"])), ([1], ("columns", ["t"], [["b"]]))]
    assert json.loads(model.render(parts, 3)) == [{"t": "a"}, {"t": "b"}, {"t": "c"}]
    assert model.render([], 0) == b"[]"


def test_mixed_missing_values_of_a_tensor() -> None:
    """A tensor of another numeric dtype is written as the declared one."""
    model = contract(INPUT, [tensor("float64", (-1, 2, 2))])
    got = answer(model, ("values", np.arange(4).reshape(1, 2, 2)), 1)
    assert got == [[[0, 1], [2, 3]]]
    refused(model, ("values", np.zeros((1, 2, 3))), 1)
    refused(model, ("values", np.zeros((1, 2))), 1)


def test_a_missing_whole_number_may_come_as_any_float() -> None:
    """What a model puts for it depends on the floats that it computes with."""
    model = contract(INPUT, outputs=[column("long", "y", required=False)])
    for dtype in ("f2", "f4", "f8"):
        assert answer(model, ("columns", ["y"], [np.array([1, NAN], dtype)]), 2) == [
            {"y": 1}, {"y": None},
        ]  # fmt: skip


def test_columns_of_one_name_are_refused() -> None:
    """An object would lose one of them."""
    assert "same name" in refused(contract(INPUT), ("columns", ["a", "a"], [[1], [2]]), 1)


def test_a_length_of_time_is_no_number() -> None:
    """Whoever reads it could not know of what."""
    assert refused(contract(INPUT), ("values", np.array([1, 2], "m8[ns]")), 2)


NUMBERS = np.arange(100) - 50
LONG_COLUMNS: list[tuple[Any, Any]] = [
    ("double", ("values", NUMBERS * 0.1)),
    ("double", ("values", (NUMBERS * 0.1).reshape(-1, 1))),
    ("double", ("values", np.where(NUMBERS % 3, NAN, np.where(NUMBERS % 2, np.inf, -np.inf)))),
    ("double", ("columns", ['a "b"'], [NUMBERS])),
    ("double", ("columns", ["?", 'a "b"'], [NUMBERS > 0, np.array(NUMBERS, "f4") / 3])),
    ("float", ("values", (NUMBERS / 7).astype("f4"))),
    ("float", ("values", NUMBERS / 7)),
    ("long", ("values", np.repeat([-(2**63), 2**63 - 1], 50))),
    ("integer", ("columns", ['a "b"'], [NUMBERS.astype("i1")[::-1]])),
    ("boolean", ("columns", ['a "b"'], [NUMBERS > 0])),
    ("long", ("values", NUMBERS.astype("f8"))),
    ("string", ("values", [*map(str, NUMBERS)])),
]


@pytest.mark.parametrize(("type_", "output"), LONG_COLUMNS)
def test_many_rows_are_written_as_each_alone(type_: Any, output: Any) -> None:
    """A long answer of one column is the answers to its rows, one after the other."""
    model = contract(INPUT, outputs=[column(type_, 'a "b"')])
    long = model.render([(range(100), output)], 100)
    single = model.render_each(output, [1] * 100)
    assert single is not None
    assert long == b"[%b]" % b",".join(each[1:-1] for each in single)


@pytest.mark.parametrize(
    ("type_", "output"),
    [
        ("integer", ("values", NUMBERS + 2**31)),
        ("float", ("values", NUMBERS * 1e300)),
        ("double", ("columns", ["x", "y"], [NUMBERS, NUMBERS[1:]])),
        ("double", ("columns", ["y", "z"], [NUMBERS, NUMBERS])),
    ],
)
def test_many_rows_are_refused_as_few_are(type_: Any, output: Any) -> None:
    """What doesn't fit is told in the same words, however many rows there are."""
    model = contract(INPUT, outputs=[column(type_, "x")])
    columns = output[2] if output[0] == "columns" else [output[1]]
    few = with_columns(output, [each[98:] for each in columns])
    assert refused(model, output, 100) == refused(model, few, 2)
