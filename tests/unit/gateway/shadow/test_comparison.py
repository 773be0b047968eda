"""Two answers compared: what counts as equal, and how numbers differ."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson
import pytest

from gateway.shadow.comparison import are_equal, compare

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("a", "b", "tolerance", "equal"),
    [
        (1.0, 1.0, None, True),
        (1.0, 1.0 + 1e-9, None, True),
        (1.0, 1.001, None, False),
        (1.0, 1.001, 0.01, True),
        (0.0, 1e-12, 0.01, False),
        (NAN, NAN, None, True),
        (None, NAN, None, True),
        (None, None, None, True),
        (None, 0.0, None, False),
        (NAN, 0.0, None, False),
        (INF, INF, None, True),
        (INF, -INF, None, False),
        (INF, 1e308, 0.5, False),
        (1_000_000, 1_000_001, None, False),
        (1_000_000, 1_000_001, 0.01, True),
        (1, 1.0, None, True),
        (True, 1, None, False),
        (True, True, None, True),
        ("a", "a", None, True),
        ("a", "b", 1.0, False),
        ("1", 1, None, False),
        (np.float32(0.1), np.float32(0.1), None, True),
        ([1.0, 2.0], [1.0, 2.0 + 1e-9], None, True),
        ([1.0, 2.0], [1.0], None, False),
        ({"a": [1, "x"]}, {"a": [1, "x"]}, None, True),
        ({"a": 1}, {"b": 1}, None, False),
        (np.array([1.0, NAN]), np.array([1.0, NAN]), None, True),
        (np.array([1, 2]), np.array([1, 3]), None, False),
        (np.array(1.0), np.array(1.0), None, True),
        (np.array([1.0]), np.array([[1.0]]), None, False),
        (orjson.Fragment(b"99999999999999999999"), orjson.Fragment(b"99999999999999999999"), None,
         True),
        (orjson.Fragment(b"99999999999999999999"), orjson.Fragment(b"99999999999999999998"), None,
         False),
    ],
)  # fmt: skip
def test_what_is_equal(a: Any, b: Any, tolerance: float | None, equal: bool) -> None:
    """Numbers within the tolerance, NaN and null to each other, and all else as it is written."""
    assert are_equal(a, b, tolerance) is equal
    assert are_equal(b, a, tolerance) is equal


@pytest.mark.parametrize("rows", [3, 200])
def test_many_rows_are_compared_as_few_are(rows: int) -> None:
    """Whole arrays and single values go by the same rules."""
    first = [1.0, NAN, INF, 0.5, -2.0] * rows
    second = [1.0, NAN, -INF, 0.5 + 1e-9, -3.0] * rows
    column = compare({"y": first}, {"y": second}, None).columns[0]
    assert list(column.different) == [i for i in range(5 * rows) if i % 5 in (2, 4)]
    assert sorted(set(np.round(column.differences, 6))) == [-1.0, 0.0]
    assert len(column.differences) == 3 * rows


def test_a_column_of_one_side_differs_everywhere() -> None:
    """What only one answer has, and what has other rows, is different in each of them."""
    compared = compare({"y": [1.0, 2.0]}, {"y": [1.0], "z": ["a"]}, None)
    assert [(each.name, list(each.different)) for each in compared.columns] == [
        ("y", [0, 1]),
        ("z", [0]),
    ]
    assert compared.different == [0, 1]


def test_a_row_differs_where_any_column_does() -> None:
    """Rows are counted once."""
    compared = compare(
        {"y": [1.0, 2.0, 3.0], "t": ["a", "b", "c"]},
        {"y": [1.0, 9.0, 3.0], "t": ["a", "x", "y"]},
        None,
    )
    assert compared.different == [1, 2]
