"""What a model's lists and dicts mean, over functions that stand for models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.types.schema import Array, ColSpec, Schema

from deployments.model_process.answers import AmbiguousOutput, ByColumn, Reading

CUSTOM = "mlflow.pyfunc.model"


class Model:
    """Answers some values for each row, as it is told; `asked` counts what it was asked again."""

    def __init__(self, outputs: int, form: Callable[[np.ndarray], Any]) -> None:
        self._outputs = outputs
        self._form = form
        self.asked = 0

    def answer(self, rows: Sequence[int]) -> Any:
        return self._form(self.values(rows))

    def values(self, rows: Sequence[int]) -> np.ndarray:
        return np.array([[10.0 * row + i for i in range(self._outputs)] for row in rows])

    def ask(self, rows: tuple[int, ...]) -> Any:
        self.asked += 1
        return self.answer(rows)


def by_row(values: np.ndarray) -> Any:
    return list(values)


def by_output(values: np.ndarray) -> Any:
    return list(values.T)


def columns(values: np.ndarray) -> Any:
    return {f"c{i}": column.tolist() for i, column in enumerate(values.T)}


@pytest.mark.parametrize("form", [by_row, by_output])
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(1, 4))
def test_arrays_of_rows_and_of_outputs_are_told_apart(
    form: Any, calls: list[int], outputs: int
) -> None:
    """Whatever the numbers of rows and outputs, and in whatever order a process is called: each row
    gets its own values, and the model is asked again once at most."""
    reading, model = Reading(CUSTOM, None), Model(outputs, form)
    for rows in calls:
        read = reading.read(model.answer(range(rows)), rows, model.ask)
        assert [list(map(float, row)) for row in read] == model.values(range(rows)).tolist()
    assert model.asked <= 1


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(1, 3))
def test_columns_of_lists_are_told_from_an_object_of_lists(calls: list[int], outputs: int) -> None:
    """A dict whose lists are as long as there are rows is columns; one that has the same lists
    whatever it is asked is an object."""
    reading, model = Reading(CUSTOM, None), Model(outputs, columns)
    constant, reads = {"a": ["x", "y"], "b": [0.5, 0.25]}, Reading(CUSTOM, None)
    for rows in calls:
        assert isinstance(reading.read(model.answer(range(rows)), rows, model.ask), ByColumn)
        assert reads.read(constant, rows, lambda _: constant) == [constant]
    assert model.asked <= 1


@pytest.mark.parametrize(
    ("flavor", "hinted", "turned"),
    [("mlflow.sklearn", False, True), ("mlflow.keras", False, True),
     ("mlflow.transformers", False, False), (CUSTOM, True, False)],
)  # fmt: skip
def test_a_flavor_that_always_means_the_same_is_not_asked(
    flavor: str, hinted: bool, turned: bool
) -> None:
    """scikit-learn and Keras have an array per output, pipelines and hinted models a value per
    row."""
    answer = [np.array([[1.0], [2.0]]), np.array([[3.0], [4.0]])]
    reading = Reading(flavor, Schema([ColSpec(Array(Array("double")))]), hinted=hinted)
    read = reading.read(answer, 2, pytest.fail)
    assert (np.array(read)[0, 1] == [3.0]).all() == turned


def test_what_cannot_be_told_is_no_answer() -> None:
    """A model that fails when it is asked about other rows leaves it open."""
    for answer in ([np.ones(2)] * 2, {"a": [1, 2]}):
        with pytest.raises(AmbiguousOutput):
            Reading(CUSTOM, None).read(answer, 2, lambda _: None)


@pytest.mark.parametrize(
    "answer", [pd.DataFrame({"a": [1]}), np.ones(2), [1, 2], ["ab", "cd"], "text", None, []]
)
def test_all_else_stays_as_it_is(answer: Any) -> None:
    """Tables, arrays, flat lists and bare values mean one thing only."""
    assert Reading(CUSTOM, None).read(answer, 2, pytest.fail) is answer
