"""Columns of strings that take lists of them, and models that are called row by row."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator

from gateway.catalog import contract_of
from gateway.contract import Contract, differences
from gateway.contract.signature import ROW_BY_ROW, TEXTS_IN_STRINGS
from gateway.errors import InvalidInput
from tests.support.catalogs import signature
from tests.unit.gateway.contract.signatures import model_input


def made(*columns: Any, **flags: bool) -> Contract:
    return contract_of(orjson.dumps({**json.loads(signature(*columns)), **flags}).decode())


LABELLED = made(
    ("text", "string"), ("labels", "string"), ("hint", "string", False), **{TEXTS_IN_STRINGS: True}
)


@pytest.mark.parametrize(
    ("labels", "pointer"),
    [("film", None), (["film", "weather"], None), (["film", 1], "/labels"), ([], "/labels"),
     ([["film"]], "/labels"), (1, "/labels"), ({"a": "b"}, "/labels"), (None, "/labels")],
)  # fmt: skip
def test_a_string_or_a_list_of_strings(labels: Any, pointer: str | None) -> None:
    """Either is taken, and nothing else; the published schema says the same."""
    body = {"text": "a", "labels": labels}
    valid = Draft202012Validator(LABELLED.request_schema()).is_valid(body)
    if pointer is None:
        assert valid
        ((_, frame),) = LABELLED.parse(orjson.dumps(body)).frames
        assert model_input(frame)["labels"].tolist() == [labels]
        return
    assert not valid
    with pytest.raises(InvalidInput) as refused:
        LABELLED.parse(orjson.dumps(body))
    assert [each.pointer for each in refused.value.violations] == [pointer]


def test_null_is_taken_where_it_is_optional() -> None:
    """As of any column; the model sees NaN where it was sent, and no column where it wasn't."""
    for body in ({"text": "a", "labels": "b", "hint": None}, {"text": ["a"], "labels": "b"}):
        Draft202012Validator(LABELLED.request_schema()).validate(body)
        ((_, frame),) = LABELLED.parse(orjson.dumps(body)).frames
        table = model_input(frame)
        assert ("hint" in table) == ("hint" in body)
        assert "hint" not in table or table["hint"].isna().all()


def test_rows_with_lists_go_alone() -> None:
    """MLflow's wrappers look at the first row's list; rows of plain strings share a call, be they
    read the short way or the long one."""
    rows = [{"text": "a", "labels": x} for x in ("b", ["c"], ["c"], "d")]
    request = LABELLED.parse(orjson.dumps(rows))
    assert [list(places) for places, _ in request.frames] == [[0, 3], [1], [2]]
    assert [frame.whole for _, frame in request.frames] == [False, True, True]
    plain = made(("text", "string"), **{TEXTS_IN_STRINGS: True})
    short = plain.parse(b'{"text": "a"}').frames[0][1]
    long = plain.parse(b'{"inputs": {"text": "a"}}').frames[0][1]
    assert short.key == long.key


@pytest.mark.parametrize("columns", [[("text", "string")], [("n", "long", False), ("x", "double")]])
def test_a_model_that_is_called_row_by_row_gets_one(columns: list[Any]) -> None:
    """Each row of a list is a call of its own, which shares with no other."""
    model = made(*columns, **{ROW_BY_ROW: True})
    request = model.parse(orjson.dumps([model.example()] * 3))
    assert [list(places) for places, _ in request.frames] == [[0], [1], [2]]
    assert all(frame.whole and frame.rows == 1 for _, frame in request.frames)
    assert len({frame.key for _, frame in request.frames}) == 3


def test_the_gate_knows_which_is_wider() -> None:
    """A version that takes lists, too, may follow one that doesn't, and not the other way round."""
    narrow = made(("text", "string"), ("labels", "string"), ("hint", "string", False))
    assert not differences(narrow, LABELLED)
    assert {each.change for each in differences(LABELLED, narrow)} == {"type"}


def test_the_example_is_one() -> None:
    """A made-up request is valid, and the form of the page has the type in words."""
    assert LABELLED.parse(orjson.dumps(LABELLED.example())).rows == 1
