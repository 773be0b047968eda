"""Models that are served without a signature."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from jsonschema import Draft202012Validator

from gateway.catalog import UNTYPED_SIGNATURE, compare_signatures, contract_of
from gateway.errors import InvalidInput, PayloadTooLarge
from tests.support.catalogs import PLAIN
from tests.unit.gateway.contract.signatures import model_input

MODEL = contract_of(UNTYPED_SIGNATURE)

TABLE = [{"a": 1, "b": "x"}, {"a": None, "c": [1]}]


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        ({"a": 1, "b": "x"}, pd.DataFrame([{"a": 1, "b": "x"}])),
        (TABLE, pd.DataFrame(TABLE)),
        ({"inputs": TABLE}, pd.DataFrame(TABLE)),
        ({"inputs": {"a": [1, 2]}, "params": {}}, pd.DataFrame([{"a": [1, 2]}])),
        ([1, 2, 3], np.array([1, 2, 3])),
        ([[1.5, 2], [3, 4]], np.array([[1.5, 2.0], [3.0, 4.0]])),
        ([[[True]]], np.array([[[True]]])),
        ([[1], [2, 3]], [[1], [2, 3]]),
        ([1, "a"], [1, "a"]),
        ([1, None], [1, None]),
        ([2**70], [2**70]),
        (["a", "b"], ["a", "b"]),
        ("a", ["a"]),
        (7, np.array([7])),
        ([{"a": 1}, 2], [{"a": 1}, 2]),
        ([[]], [[]]),
    ],
)
def test_records_are_a_table_numbers_an_array_all_else_a_list(body: Any, seen: Any) -> None:
    """The model gets what pandas and NumPy make of the body by themselves, in one call that no
    other request shares."""
    text = orjson.dumps(body) if body != [2**70] else json.dumps(body).encode()
    assert Draft202012Validator(MODEL.request_schema()).is_valid(body)
    request = MODEL.parse(text)
    ((places, frame),) = request.frames
    got = model_input(frame)
    assert type(got) is type(seen)
    if isinstance(seen, pd.DataFrame):
        pd.testing.assert_frame_equal(got, seen)
    else:
        np.testing.assert_array_equal(got, seen) if isinstance(seen, np.ndarray) else None
        assert getattr(got, "dtype", None) == getattr(seen, "dtype", None)
        assert isinstance(seen, np.ndarray) or got == seen
    assert (frame.whole, len(places), frame.rows) == (True, request.rows, request.rows)
    assert frame.key != MODEL.parse(text).frames[0][1].key


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"inputs": [1], "params": {"a": 1}}, "/params/a"),
        ({"inputs": [1], "more": 1}, "/more"),
    ],
)
def test_what_nobody_can_be_given_is_refused(body: Any, pointer: str) -> None:
    """MLflow hands no params to a model that declares none."""
    assert not Draft202012Validator(MODEL.request_schema()).is_valid(body)
    with pytest.raises(InvalidInput) as refused:
        MODEL.parse(orjson.dumps(body))
    assert [each.pointer for each in refused.value.violations] == [pointer]


def test_an_empty_list_calls_nothing() -> None:
    """As with any other model."""
    assert MODEL.parse(b"[]").frames == ()


@pytest.mark.parametrize("body", [b"[1, 2, 3]", b"[1, null, 3]", b'[{}, {"a": 1}, {}]'])
def test_the_bound_on_rows_holds(body: bytes) -> None:
    """Whatever the rows are."""
    assert MODEL.parse(body, max_rows=3).rows == 3
    with pytest.raises(PayloadTooLarge):
        MODEL.parse(body, max_rows=2)


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        (("values", np.array([1.5, 2.5])), [1.5, 2.5]),
        (("values", [{"any": [1, {"thing": None}]}]), [{"any": [1, {"thing": None}]}]),
        (("columns", ["a", "b"], [[1, 2], ["x", "y"]]), [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]),
        (("values", []), []),
    ],
)
def test_answers_come_as_they_are(output: Any, answer: Any) -> None:
    """Of any length and with any members."""
    assert json.loads(MODEL.render([(range(1), output)], 1)) == answer
    Draft202012Validator(MODEL.response_schema()).validate(answer)


@pytest.mark.parametrize("exact", [False, True])
def test_nothing_is_compared(exact: bool) -> None:
    """A version without a signature keeps any contract, and any version keeps its: nothing was
    promised. Each is called and answers by its own types."""
    for contract, candidate in ((PLAIN, UNTYPED_SIGNATURE), (UNTYPED_SIGNATURE, PLAIN)):
        assert compare_signatures(contract, candidate, exact=exact) == ()
        own, served = contract_of(candidate), contract_of(contract)
        assert own.extended_by(served) is own
        assert own.still_taking(served) == own


def test_no_example_is_made_up() -> None:
    """Nobody knows what the model takes."""
    assert (MODEL.example(), MODEL.zeros()) == (None, None)
    assert contract_of(PLAIN).example() is not None
