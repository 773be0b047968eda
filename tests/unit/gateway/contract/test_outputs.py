"""Answers taken apart and put together by rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gateway.contract.outputs import has_rows, joined_output, split_output

TABLE: Any = ("columns", ["a", "b"], [np.array([1, 2, 3]), ["x", "y", "z"]])
VALUES: Any = ("values", np.array([1.5, 2.5, 3.5]))


@pytest.mark.parametrize("output", [TABLE, VALUES, ("values", ["p", "q", "r"])])
def test_an_answer_in_parts_is_the_answer(output: Any) -> None:
    """Split by rows and joined again, nothing has changed."""
    joined = joined_output(split_output(output, [2, 0, 1]))
    assert repr(joined) == repr(output)


@pytest.mark.parametrize(
    ("output", "rows", "expected"),
    [
        (VALUES, 3, True),
        (VALUES, 2, False),
        (("values", np.array(5)), 1, False),
        (("values", "abc"), 3, False),
        (("columns", ["a", "b"], [[1, 2], [1]]), 2, False),
        (("columns", [], []), 1, False),
    ],
)
def test_rows_are_counted_in_every_column(output: Any, rows: int, expected: bool) -> None:
    """One element for each row, or it isn't an answer by row."""
    assert has_rows(output, rows) is expected


def test_parts_keep_their_values_when_they_differ_in_type() -> None:
    """Whole numbers stay whole beside a part of floats, and lists beside arrays."""
    joined = joined_output(
        [("values", np.array([1])), ("values", np.array([2.5])), ("values", [3])]
    )
    assert joined is not None
    assert [type(value) for value in joined[1]] == [np.int64, np.float64, int]


@pytest.mark.parametrize(
    "parts", [[VALUES, TABLE], [TABLE, VALUES], [TABLE, ("columns", ["b", "a"], [[1], [2]])]]
)
def test_parts_of_different_forms_are_not_joined(parts: Any) -> None:
    """A list isn't put together from answers that mean different things."""
    assert joined_output(parts) is None
