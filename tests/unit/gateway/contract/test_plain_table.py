"""The short way for rows of plain scalars takes what the long way takes, and reads the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contract import Contract, Frame
from gateway.contract.plain_table import PlainTable
from gateway.errors import InvalidInput, MalformedJson
from gateway.forms import json_columns
from tests.support.catalogs import signature

COLUMNS = ("d", "double"), ("f", "float"), ("l", "long"), ("i", "integer"), ("b", "boolean")
TEXT = signature(*COLUMNS, ("s", "string"), ("o", "double", False))


def contract(text: str = TEXT) -> Contract:
    return Contract.from_signature(orjson.loads(text))


def short(made: Contract, body: bytes) -> Frame | None:
    table = PlainTable.of(made.inputs, made.accepted)
    assert table is not None
    return table.read(body)


def long(made: Contract, body: bytes) -> Frame:
    """The long way, by the parts that the short one is put before."""
    read = made._reader.read(body)
    ((places, frame),) = made._framer.frames(read.rows, read.at, read.single)
    assert list(places) == list(range(len(read.rows)))
    return frame


numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, -0.0, 1.0, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 3.4028235e38, 1e308]),
)
anything = st.one_of(numbers, st.booleans(), st.text(max_size=4), st.none(), st.just([1]))
good = st.fixed_dictionaries(
    {
        "d": numbers,
        "f": st.floats(width=32, allow_nan=False, allow_infinity=False),
        "l": st.integers(-(2**63), 2**63 - 1),
        "i": st.integers(-(2**31), 2**31 - 1),
        "b": st.booleans(),
        "s": st.text(max_size=4),
        "o": st.floats(-10, 10),
    }
)
other = st.fixed_dictionaries(dict.fromkeys("dflibso", anything), optional={"x": anything})


@settings(max_examples=150)
@given(rows=st.one_of(st.lists(st.one_of(good, good, other), max_size=4), good, other, anything))
def test_both_ways_read_the_same(rows: Any) -> None:
    """What the short way takes the long way takes too, with equal names, types and values."""
    made = contract()
    body = _json(rows)
    frame = short(made, body)
    if frame is None:
        return
    expected = long(made, body)
    assert (frame.layout, frame.names, frame.rows) == ("table", expected.names, expected.rows)
    assert frame.key == expected.key
    for mine, theirs in zip(frame.columns, expected.columns, strict=True):
        assert type(mine) is type(theirs)
        if isinstance(mine, np.ndarray) and isinstance(theirs, np.ndarray):
            assert mine.dtype == theirs.dtype
            np.testing.assert_array_equal(mine, theirs)
        else:
            assert mine == theirs


@settings(max_examples=100)
@given(rows=st.lists(good, min_size=1, max_size=4))
def test_plain_rows_go_the_short_way(rows: list[Any]) -> None:
    """The shortcut is taken by what it is for (numbers short of the very bounds)."""
    for row in rows:
        row["d"] = row["f"] = 1.5
    assert short(contract(), _json(rows)) is not None


@settings(max_examples=150)
@given(rows=st.lists(st.one_of(good, good, good, other), min_size=1, max_size=3))
def test_columns_mean_what_rows_mean(rows: list[dict[str, Any]]) -> None:
    """The same cells make the same frame, or are refused, whichever way they are written."""
    made = contract()
    for row in rows:
        row.pop("x", None)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    body = _json({"columns": columns})
    try:
        expected = made.parse(_json(rows))
    except InvalidInput as refusal:
        wrong = len(refusal.violations)
    else:
        wrong = 0
    if wrong:
        with pytest.raises(InvalidInput) as caught:
            json_columns.read(made, body, None, params=None)
        assert len(caught.value.violations) == wrong
        return
    request = json_columns.read(made, body, None, params=None)
    assert request.rows == expected.rows
    assert [list(places) for places, _ in request.frames] == [
        list(places) for places, _ in expected.frames
    ]
    for (_, mine), (_, theirs) in zip(request.frames, expected.frames, strict=True):
        assert (mine.names, mine.key) == (theirs.names, theirs.key)
        for own, other in zip(mine.columns, theirs.columns, strict=True):
            np.testing.assert_array_equal(own, other)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b"null", b"[1]", b'"d"', b'["d"]', b"NaN", b'{"inputs": []}',
     b'[{"d": NaN}]', b"[[]]"],
)  # fmt: skip
def test_what_isn_t_plain_goes_the_long_way(body: bytes) -> None:
    """The shortcut never decides that something is wrong."""
    made = contract()
    assert short(made, body) is None
    try:
        made.parse(body)
    except (InvalidInput, MalformedJson):
        return
    assert body in (b"[]", b'{"inputs": []}')


@pytest.mark.parametrize(
    "columns",
    [(("t", "datetime"),), (("d", "double"), ("l", "long", False)), (("x", "binary"),)],
)
def test_other_types_have_no_short_way(columns: Any) -> None:
    """Where a value must be converted or may make a frame of its own there is no shortcut."""
    made = contract(signature(*columns))
    assert PlainTable.of(made.inputs, made.accepted) is None


def test_a_version_that_drops_a_field_has_no_short_way() -> None:
    """What callers may still send is left out by the long way."""
    made = contract(signature(("d", "double"))).extended_by(
        contract(signature(("d", "double"), ("gone", "double", False)))
    )
    assert PlainTable.of(made.inputs, made.accepted) is None
    ((_, frame),) = made.parse(b'{"d": 1, "gone": 2}').frames
    assert frame.names == ("d",)


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb"])
def test_names_that_no_struct_can_have_go_the_long_way(name: str) -> None:
    """A column whose name is written with an escape is read as any other."""
    made = contract(signature((name, "double")))
    body = orjson.dumps([{name: 1.5}, {name: 2}])
    assert short(made, body) is None
    ((_, frame),) = made.parse(body).frames
    np.testing.assert_array_equal(frame.columns[0], [1.5, 2.0])


@pytest.mark.parametrize("number", ["9" * 400, "-1e400", "9" * 5000])
@pytest.mark.parametrize("kind", ["double", "float", "long"])
def test_a_number_beyond_all_bounds_is_refused(number: str, kind: str) -> None:
    """In rows and in columns alike, with a pointer to it."""
    made = contract(signature(("x", kind)))
    rows = b'[{"x": 1}, {"x": %b}]' % number.encode()
    columns = b'{"columns": {"x": [1, %b]}}' % number.encode()
    with pytest.raises((InvalidInput, MalformedJson)) as of_rows:
        made.parse(rows)
    with pytest.raises((InvalidInput, MalformedJson)) as of_columns:
        json_columns.read(made, columns, None, params=None)
    assert type(of_rows.value) is type(of_columns.value)
    if isinstance(of_columns.value, InvalidInput):
        assert [each.pointer for each in of_columns.value.violations] == ["/columns/x/1"]


def _json(rows: Any) -> bytes:
    """JSON with whole numbers of any size, as callers may write them."""
    import json

    return json.dumps(rows).encode()
