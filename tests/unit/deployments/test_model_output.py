"""Models' answers in plain form."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pydantic
import pytest

from deployments.model_output import UnsupportedOutput, plain_output


class Answer(pydantic.BaseModel):
    text: str
    when: dt.datetime | None = None


@dataclasses.dataclass
class Point:
    x: float


class Word(str):
    """A subclass of a plain type."""


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        (["a", 1, None], ("values", ["a", 1, None])),
        ("text", ("values", ["text"])),
        (3.5, ("values", [3.5])),
        ({"a": 1}, ("values", [{"a": 1}])),
        ({"a": [1, 2], "b": ["x", "y"]}, ("columns", ["a", "b"], [[1, 2], ["x", "y"]])),
        ({"a": [1, 2], "b": [1]}, ("values", [{"a": [1, 2], "b": [1]}])),
        ([Answer(text="t")], ("values", [{"text": "t", "when": None}])),
        ([Point(1.0)], ("values", [{"x": 1.0}])),
        ([Word("w")], ("values", ["w"])),
        ([pd.NaT], ("values", [np.datetime64("NaT")])),
        ([pd.Timestamp("2024-01-01", tz="Europe/Berlin")],
         ("values", [np.datetime64("2023-12-31T23:00:00", "us")])),
        (pd.DataFrame({1: ["a", None]}), ("columns", ["1"], [["a", None]])),
        (pd.Series(["a", None], dtype=object), ("values", ["a", None])),
    ],
)  # fmt: skip
def test_answers_lose_their_classes(answer: Any, plain: tuple[Any, ...]) -> None:
    """Frames, series, dicts, pydantic models, dataclasses and scalars all have one of two forms."""
    made = plain_output(answer)
    assert str(made) == str(plain)
    assert type(made[-1]) is type(plain[-1])


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
