"""Values as data: whatever a contract can make comes back equal, and nothing else can."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy

from deployments.model_process.framing import Inbox, MalformedMessage, Message, packed
from deployments.model_process.values import Reader, dumped, loaded

FLOATS = st.floats(allow_nan=True, allow_infinity=True)
TEXTS = st.text(st.characters(), max_size=8)
NUMPY = (
    of_numpy.boolean_dtypes()
    | of_numpy.integer_dtypes()
    | of_numpy.unsigned_integer_dtypes()
    | of_numpy.floating_dtypes()
    | of_numpy.complex_number_dtypes()
    | of_numpy.datetime64_dtypes(max_period="Y", min_period="ns")
    | of_numpy.timedelta64_dtypes(max_period="D", min_period="ns")
    | of_numpy.unicode_string_dtypes(min_len=1, max_len=5)
    | of_numpy.byte_string_dtypes(min_len=1, max_len=5)
)
ARRAYS = of_numpy.arrays(
    NUMPY, of_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
)
SCALARS = ARRAYS.filter(lambda array: array.size > 0).map(lambda array: array.ravel()[0])
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**70), max_value=2**70)
    | FLOATS
    | TEXTS
)
ODD = PLAIN | st.binary(max_size=6) | st.datetimes() | SCALARS | ARRAYS
KEYS = TEXTS | st.just("$")
NESTED = st.recursive(
    ODD,
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=20,
)
COLUMNS = st.one_of(
    *(
        st.lists(each, min_size=5, max_size=12)
        for each in (
            FLOATS, st.integers(), st.booleans(), TEXTS, st.binary(max_size=5), st.none() | TEXTS,
            st.lists(FLOATS, max_size=4), st.lists(st.lists(TEXTS, max_size=3), max_size=3),
            SCALARS, ARRAYS, NESTED,
        )
    )
)  # fmt: skip


def returned(value: Any) -> Any:
    """The value after its way, in a message of two."""
    header, buffers = dumped(lambda writer: [writer.describe(value), writer.describe([value])])
    inbox = Inbox()
    for piece in np.array_split(np.frombuffer(packed(header, buffers), np.uint8), 3):
        inbox.feed(piece.tobytes())
    message = inbox.next()
    assert message is not None
    reader, (first, second) = Reader(message.body), loaded(message.header)
    found = reader.read(first)
    (again,) = reader.read(second)
    assert same(again, value)
    return found


def same(a: Any, b: Any) -> bool:
    """Equal, of one type, and NaN is itself. NumPy's floats, texts and bytes that are Python's,
    too, may come as Python's."""
    if isinstance(b, bytes) and isinstance(a, bytes):
        return a == b
    if isinstance(b, float | str) and isinstance(a, float | str):
        return a == b or (a != a and b != b)
    if type(a) is not type(b):
        return False
    if isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and equal_arrays(a, b)
    if isinstance(b, np.generic):
        return a.dtype == b.dtype and equal_arrays(np.array(a), np.array(b))
    if isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in b)
    return bool(a == b)


def equal_arrays(a: Any, b: Any) -> bool:
    if a.dtype == object:
        return all(map(same, a.ravel().tolist(), b.ravel().tolist()))
    return bool(a.tobytes() == b.tobytes())


@given(NESTED)
def test_whatever_is_nested_comes_back_equal(value: Any) -> None:
    """Numbers of any size, texts with lone surrogates, bytes, times, arrays, in lists and dicts."""
    assert same(returned(value), value)


@given(COLUMNS)
def test_every_column_comes_back_equal(column: list[Any]) -> None:
    """Lists of one type, which travel as numbers, and of several, which don't."""
    assert same(returned(column), column)


@given(ARRAYS)
def test_every_array_comes_back_equal_and_may_be_written_to(array: Any) -> None:
    """Of any shape, order and type; a model may change what it is given."""
    for given_as in (array, np.asfortranarray(array), array[::-1] if array.ndim else array):
        found = returned(given_as)
        assert same(found, np.array(given_as))
        assert found.flags.writeable


def test_arrays_of_objects_keep_their_elements() -> None:
    """Each element may be a list itself, or an array."""
    array = np.empty((2, 2), dtype=object)
    array[0, 0], array[0, 1], array[1, 0], array[1, 1] = [1, 2], "a", None, np.array([1.5])
    assert same(returned(array), array)


def test_numbers_too_large_for_a_text_come_back() -> None:
    """Python refuses to write them as decimals."""
    assert returned([10**5000, -(10**5000)]) == [10**5000, -(10**5000)]


def test_a_naive_time_keeps_its_microseconds() -> None:
    """As models made from type hints get it."""
    moment = dt.datetime(2026, 11, 29, 1, 2, 3, 4)
    assert returned([moment]) == [moment]


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, dt.date(2026, 1, 1), np.void(b"a")])
def test_what_has_no_form_is_refused_where_it_is_written(value: Any) -> None:
    """So it can't come as something else."""
    with pytest.raises(TypeError):
        dumped(lambda writer: writer.describe([value]))


def test_what_is_nested_too_deep_is_refused_where_it_is_written() -> None:
    """As an answer that holds itself is."""
    deep: list[Any] = []
    deep.append(deep)
    with pytest.raises((RecursionError, ValueError)):
        dumped(lambda writer: writer.describe(deep))


DESCRIPTIONS = st.recursive(
    st.none() | st.integers(-3, 10**12) | st.text(max_size=3) | st.sampled_from(
        ["v", "t", "a", "o", "f", "i", "b", "g", "s", "y", "l", "r", "<f8", "<M8[ns]", "|O", "V4"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.just("$"), inner, max_size=1),
    max_leaves=12,
)  # fmt: skip


@given(DESCRIPTIONS, st.binary(max_size=64))
def test_what_a_process_makes_up_is_malformed_or_a_value(said: Any, body: bytes) -> None:
    """Never another error, code that runs, or memory that a few bytes ask for."""
    try:
        Reader(bytearray(body)).read(said)
    except MalformedMessage:
        return


@given(st.binary(max_size=64))
def test_bytes_by_chance_are_no_message(data: bytes) -> None:
    """More is waited for, or it is malformed."""
    inbox = Inbox()
    inbox.feed(data)
    try:
        message = inbox.next()
        if message is not None:
            loaded(message.header)
    except MalformedMessage:
        return


def test_messages_that_come_together_are_taken_apart() -> None:
    """In their order, whatever pieces they come in."""
    messages = [(json.dumps(i).encode(), [b"x" * i]) for i in range(40)]
    stream = b"".join(packed(header, buffers) for header, buffers in messages)
    for step in (1, 7, 64, len(stream)):
        inbox, found = Inbox(), []
        for at in range(0, len(stream), step):
            inbox.feed(stream[at : at + step])
            while (message := inbox.next()) is not None:
                found.append(message)
        assert [json.loads(message.header) for message in found] == list(range(40))
        assert [len(message.body.rstrip(b"\0")) for message in found] == list(range(40))
        assert all(isinstance(message, Message) for message in found)
