"""Models' answers in plain form."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from collections import deque
from collections.abc import AsyncIterator, Iterator
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pydantic
import pytest

from deployments.model_process.answers import Alone, ByColumn
from deployments.model_process.output import UnsupportedOutput, plain_output


class Answer(pydantic.BaseModel):
    text: str
    when: dt.datetime | None = None


@dataclasses.dataclass
class Point:
    x: float


class Sparse:
    """Like one of scipy's matrices."""

    def toarray(self) -> Any:
        return own([[1.0], [2.0]])


class Word(str):
    """A subclass of a plain type, which says another thing of itself."""

    def __str__(self) -> str:
        return "not the word"


class Shout(str, enum.Enum):  # noqa: UP042  # a StrEnum's own `__str__` is the value
    A = "a"


class Grade(int, enum.Enum):
    ONE = 1


class Ratio(float, enum.Enum):
    HALF = 0.5


class Colour(enum.Enum):
    RED = "red"


class Raw(bytes):
    """A subclass of a plain type."""


class Own(np.ndarray):
    """An array of the model's own class."""


class OwnRecord(np.record):
    """A record of the model's own class."""


class Own64(np.float64):
    """A scalar of the model's own class."""


class Own32(np.float32):
    """The same, of a type that Python has no counterpart of."""


def own(values: Any) -> Any:
    return np.asarray(values).view(Own)


def masked(values: Any, mask: Any) -> Any:
    return np.ma.masked_array(values, mask=mask)


def objects(*values: Any) -> Any:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def unmarked(made: tuple[Any, ...]) -> tuple[Any, ...]:
    """An answer without the mark behind it."""
    return made[: 3 if made[0] == "columns" else 2]


RECORDS = [("x", "f8"), ("y", "U3")]
PLAIN = {bool, int, float, str, bytes, type(None), np.float64, np.float32, np.int64, np.str_}
PLAIN |= {np.datetime64, np.bool_, dt.datetime}


IN_BERLIN = dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))


def is_plain(value: Any) -> bool:
    """Whether it has no class but Python's and NumPy's own."""
    if type(value) is list or type(value) is tuple:
        return all(map(is_plain, value))
    if type(value) is dict:
        return all(type(key) is str and is_plain(item) for key, item in value.items())
    if type(value) is np.ndarray:
        return value.dtype.type in PLAIN and value.dtype.metadata is None
    return type(value) in PLAIN


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        (["a", 1, None], ("values", ["a", 1, None])),
        ("text", ("values", ["text"])),
        (3.5, ("values", [3.5])),
        ({"a": 1}, ("values", [{"a": 1}])),
        ({"a": [1, 2], "b": ["x", "y"]}, ("values", [{"a": [1, 2], "b": ["x", "y"]}])),
        (ByColumn(["a", 1], [[1, 2], own([1, 2])]),
         ("columns", ["a", "1"], [[1, 2], np.array([1, 2])])),
        ({"a": [1, 2], "b": [1]}, ("values", [{"a": [1, 2], "b": [1]}])),
        ([Answer(text="t")], ("values", [{"text": "t", "when": None}])),
        ([Point(1.0)], ("values", [{"x": 1.0}])),
        ([Word("w")], ("values", ["w"])),
        ([Shout.A, Grade.ONE, Ratio.HALF, Raw(b"a\0")], ("values", ["a", 1, 0.5, b"a\0"])),
        ({Shout.A: 1, Grade.ONE: Word("w")}, ("values", [{"a": 1, "1": "w"}])),
        (pd.DataFrame({Word("w"): [Shout.A]}), ("columns", ["w"], [["a"]])),
        ([Own64(1.5), Own32(1.5)], ("values", [1.5, np.float32(1.5)])),
        (own([1.0, 2.0]), ("values", np.array([1.0, 2.0]))),
        ([own([1.0]), {"a": own([2.0])}], ("values", [np.array([1.0]), {"a": np.array([2.0])}])),
        ({"a": own([1, 2])}, ("values", [{"a": np.array([1, 2])}])),
        ([bytearray(b"a"), memoryview(b"b")], ("values", [b"a", b"b"])),
        ([pd.NA, decimal.Decimal("1.5"), decimal.Decimal(2)], ("values", [None, 1.5, 2])),
        ([pd.DataFrame({"x": [1]})], ("values", [[{"x": np.int64(1)}]])),
        (pd.DataFrame({"a": own([1.0])}), ("columns", ["a"], [np.array([1.0])])),
        (pd.DataFrame({"a": objects(own([1.0]))}), ("columns", ["a"], [[np.array([1.0])]])),
        (objects("a", Word("b")), ("values", ["a", "b"])),
        (np.array(Word("b"), dtype=object), ("values", ["b"])),
        (np.array([["a"], [Shout.A]], dtype=object), ("values", [["a"], ["a"]])),
        (masked([1.0, 2.0], [False, True]), ("values", [np.float64(1.0), None])),
        (masked([[1], [2]], [[False], [True]]), ("values", [np.array([1]), [None]])),
        (masked([1.0, 2.0], [False, False]), ("values", np.array([1.0, 2.0]))),
        ([np.ma.masked], ("values", [None])),
        (np.array([[1.0]]).view(np.matrix), ("values", np.array([[1.0]]))),
        (np.array([(1.0, "a")], RECORDS), ("values", [[np.float64(1.0), np.str_("a")]])),
        (np.array([(1.0, "a")], np.dtype((OwnRecord, RECORDS))),
         ("values", [[np.float64(1.0), np.str_("a")]])),
        (np.array([1.0], np.dtype("f8", metadata={"a": Word("w")})), ("values", np.array([1.0]))),
        (np.array(["a", "b"], np.dtypes.StringDType()), ("values", ["a", "b"])),
        (Sparse(), ("values", np.array([[1.0], [2.0]]))),
        ([Sparse()], ("values", [np.array([[1.0], [2.0]])])),
        ([pd.NaT], ("values", [np.datetime64("NaT")])),
        ([dt.time(1, 30)], ("values", ["01:30:00"])),
        ([pd.Timestamp("2024-01-01", tz="Europe/Berlin")], ("values", [IN_BERLIN])),
        (pd.DataFrame({"d": [pd.Timestamp("2024-01-01", tz="Europe/Berlin"), pd.NaT]}),
         ("columns", ["d"], [[IN_BERLIN, None]])),
        ([pd.Timestamp("2024-01-01T00:00:00.000000001", tz="Europe/Berlin")],
         ("values", [np.datetime64("2023-12-31T23:00:00.000000001")])),
        (pd.DataFrame({1: ["a", None]}), ("columns", ["1"], [["a", None]])),
        (pd.Series(["a", None], dtype=object), ("columns", ["0"], [["a", None]])),
        (pd.Series([1.0], name="y"), ("columns", ["y"], [np.array([1.0])])),
        ([dt.date(2024, 1, 31)], ("values", [np.datetime64("2024-01-31")])),
    ],
)  # fmt: skip
def test_answers_lose_their_classes(answer: Any, plain: tuple[Any, ...]) -> None:
    """Frames, series, dicts, pydantic models, dataclasses, arrays of whatever class and scalars all
    have one of two forms, in which no class is left but Python's and NumPy's own."""
    made = unmarked(plain_output(answer))
    assert str(made) == str(plain)
    assert type(made[-1]) is type(plain[-1])
    assert is_plain(made)


async def _later(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


async def _one_by_one(*values: Any) -> AsyncIterator[Any]:
    for value in values:
        yield await _later(value)


def _yielded(*values: Any) -> Iterator[Any]:
    yield from values


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        (lambda: _later(["a"]), ("values", ["a"])),
        (lambda: _later(pd.DataFrame({"a": ["x"]})), ("columns", ["a"], [["x"]])),
        (lambda: _later(_later(1)), ("values", [1])),
        (lambda: _one_by_one(1, {"a": 2}), ("values", [1, {"a": 2}])),
        (lambda: _yielded("a", "b"), ("values", ["a", "b"])),
        (lambda: map(str, [1, 2]), ("values", ["1", "2"])),
        (lambda: range(2), ("values", [0, 1])),
        (lambda: [_later(1), _yielded(2)], ("values", [1, [2]])),
        (lambda: {"a": _yielded(1, 2), "b": "x"}, ("values", [{"a": [1, 2], "b": "x"}])),
        (lambda: MappingProxyType({"a": 1}), ("values", [{"a": 1}])),
        (lambda: [pd.DataFrame({"a": [1, 2]})], ("values", [[{"a": np.int64(1)},
                                                            {"a": np.int64(2)}]])),
        (lambda: pa.table({"a": ["x", None], "b": [1, None]}),
         ("columns", ["a", "b"], [["x", None], [1, None]])),
        (lambda: pa.table({"a": [1.5, 2.5]}), ("columns", ["a"], [np.array([1.5, 2.5])])),
        (lambda: pa.record_batch({"a": [[1], [2]]}), ("columns", ["a"], [[[1], [2]]])),
        (lambda: pa.array(["x", None]), ("values", ["x", None])),
        (lambda: pa.chunked_array([[1], [2]]), ("values", np.array([1, 2]))),
        (lambda: [pa.scalar("x"), pa.array([True])], ("values", ["x", np.array([True])])),
        (lambda: [pa.table({"a": ["x"]})], ("values", [[{"a": "x"}]])),
    ],
)  # fmt: skip
def test_what_comes_later_or_in_other_tables_is_made_plain(
    answer: Any, plain: tuple[Any, ...]
) -> None:
    """Coroutines are awaited, generators are read to their end, and tables of Arrow are tables."""
    made = unmarked(plain_output(answer()))
    assert str(made) == str(plain)
    assert is_plain(made)


@pytest.mark.parametrize(
    ("answer", "mark"),
    [
        (pd.Series([1.0], name="n"), None),
        (ByColumn(["a"], [[1]], is_dict=True), ("dict",)),
        ("text", ("alone",)),
        (2.5, ("alone",)),
        (Alone([{"a": 1}]), ("alone",)),
        (["text"], None),
        (np.array([1.0]), None),
        (pd.DataFrame({"a": [1.0]}), None),
        (ByColumn(["a"], [[1]]), None),
    ],
)
def test_what_an_answer_was_is_marked_where_its_plain_form_hides_it(
    answer: Any, mark: tuple[str, ...] | None
) -> None:
    """A series is a table, a dict's columns are none, and one value is no list."""
    made = plain_output(answer)
    assert made[len(unmarked(made)) :] == (() if mark is None else (mark,))


def test_coroutines_of_a_process_have_one_event_loop() -> None:
    """What a model keeps from one call to the next may be bound to the loop it was made in."""

    async def loop() -> int:
        return id(asyncio.get_running_loop())

    assert plain_output(loop()) == plain_output(loop())


class _Frame:
    """As a data frame of Polars is, which isn't installed where this is tested."""

    def __init__(self, **columns: _Series) -> None:
        self.columns = list(columns)
        self._columns = columns

    def get_columns(self) -> list[_Series]:
        return list(self._columns.values())


class _Series:
    def __init__(self, dtype: str, values: list[Any]) -> None:
        self.dtype = dtype
        self._values = values

    def null_count(self) -> int:
        return self._values.count(None)

    def to_list(self) -> list[Any]:
        return self._values

    def to_numpy(self) -> Any:
        return np.array(self._values)


class _Lazy:
    def collect(self) -> _Frame:
        return _Frame(a=_Series("String", ["x", None]), b=_Series("Int64", [1, 2]))


for each in (_Frame, _Series, _Lazy):
    each.__module__ = "polars.of.a.test"


@pytest.mark.parametrize("answer", [_Lazy(), _Lazy().collect()])
def test_frames_of_polars_are_tables(answer: Any) -> None:
    """Lazy ones are computed; numbers stay arrays. (Real ones: `tests/flavors`.)"""
    want = ("columns", ["a", "b"], [["x", None], np.array([1, 2])])
    assert str(plain_output(answer)) == str(want)


def test_two_columns_of_one_name_of_a_foreign_table_are_refused() -> None:
    """None of them is dropped silently."""
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(UnsupportedOutput, match="one name"):
        plain_output(twice)


def test_numbers_stay_arrays() -> None:
    """Numeric columns are not taken apart."""
    kind, names, (column,) = plain_output(pd.DataFrame({"x": [1.0, 2.0]}))
    assert (kind, names, column.dtype) == ("columns", ["x"], np.float64)
    kind, array = plain_output(np.ones((2, 3)))
    assert (kind, array.shape) == ("values", (2, 3))


def test_what_has_no_plain_form_is_refused_by_its_type() -> None:
    """The message names the type and nothing of its content."""
    with pytest.raises(UnsupportedOutput, match="object"):
        plain_output([object()])


@pytest.mark.parametrize(
    "answer",
    [
        objects(object()), pd.DataFrame({"a": [object()]}), {"a": [object()]}, [Word],
        np.array([b"a"], dtype="V1"), [complex(1)], [{1.0}],
        masked(np.array([(1.0, "a")], RECORDS), [(True, False)]),
    ],
)  # fmt: skip
def test_what_has_no_plain_form_is_refused_wherever_it_is(answer: Any) -> None:
    """In an array, a frame or a dict as well; it is never passed on for the pickle to refuse."""
    with pytest.raises(UnsupportedOutput):
        plain_output(answer)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (np.array([1j]), "complex128"), (np.array([1], "m8[ns]"), "timedelta64"),
        ({"a": np.timedelta64(1, "ns")}, "timedelta64"),
        (pd.Series([pd.Timedelta(1)]), "timedelta64"),
        ([dt.timedelta(1)], "timedelta"), ([np.clongdouble(1)], "clongdouble"),
    ],
)  # fmt: skip
def test_what_json_has_no_number_for_is_named(answer: Any, kind: str) -> None:
    """A length of time and a complex number never become some number, whatever they are in."""
    with pytest.raises(UnsupportedOutput, match=kind):
        plain_output(answer)


class Jax:
    """An array of some package's own class."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array([1.5, 2.5])


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        (np.array(0.5), [np.float64(0.5)]), ([np.array(2)], [np.int64(2)]),
        (np.array([0.5], np.longdouble), np.array([0.5])), ([np.longdouble(0.5)], [0.5]),
        (pd.Index([1.5, 2.5]), np.array([1.5, 2.5])), (pd.array([1, None]), [1, None]),
        (pd.Categorical(["a", "b"]), ["a", "b"]), ({"a": pd.Index(["x"])}, [{"a": ["x"]}]),
        (Jax(), np.array([1.5, 2.5])), ([Jax()], [np.array([1.5, 2.5])]),
        (deque([1, 2]), [1, 2]), ({"a": 1}.values(), [1]),
        ([{"a": {"b": 1}.keys()}], [{"a": ["b"]}]),
        ([Colour.RED], ["red"]), ([uuid.UUID(int=5)], ["00000000-0000-0000-0000-000000000005"]),
        ([{None: 1, True: 2, False: 3, 4: 5}], [{"null": 1, "true": 2, "false": 3, "4": 5}]),
        ([{Colour.RED: 1, float("nan"): 2}], [{"red": 1, "NaN": 2}]),
        (pd.MultiIndex.from_tuples([(1, "x"), (2, "y")]), [[1, "x"], [2, "y"]]),
        (pd.DataFrame(index=range(2)), [{}, {}]),
    ],
)  # fmt: skip
def test_what_can_be_made_plain_is(answer: Any, plain: Any) -> None:
    """Arrays of no dimension and of other packages, Python's and pandas's other containers, names
    that are no texts."""
    kind, values = unmarked(plain_output(answer))
    assert kind == "values"
    assert type(values) is type(plain)
    assert str(list(values)) == str(list(plain))


def test_tensors_of_types_that_numpy_lacks_are_plain() -> None:
    """Each number of 16 bits is one of 32, and a sparse tensor a dense one."""
    torch = pytest.importorskip("torch")
    _, values = plain_output(torch.tensor([0.5, 1.5], dtype=torch.bfloat16))
    assert (values.dtype, values.tolist()) == (np.float32, [0.5, 1.5])
    _, values = plain_output(torch.tensor([[0.0, 2.0]]).to_sparse())
    assert values.tolist() == [[0.0, 2.0]]


def test_what_has_no_end_is_refused() -> None:
    """A list that holds itself, and one that is nested deeper than Python can follow."""
    endless: list[Any] = []
    endless.append(endless)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for answer in (endless, deep):
        with pytest.raises(UnsupportedOutput):
            plain_output(answer)
