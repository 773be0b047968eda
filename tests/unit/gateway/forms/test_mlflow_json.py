"""MLflow's records of plain values have a short way, which reads what the long one reads."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contract import Contract, Request
from gateway.errors import GatewayError
from gateway.forms import mlflow_json
from tests.support.catalogs import signature

MADE = Contract.from_signature(
    orjson.loads(
        signature(("d", "double"), ("l", "long"), ("b", "boolean"), ("s", "string", False))
    )
)
MOST_ROWS = 3
PLAIN = {"d": 1.5, "l": 2, "b": True, "s": "a"}

anything = st.one_of(
    st.floats(), st.integers(-(2**70), 2**70), st.booleans(), st.text(max_size=2), st.none(),
    st.sampled_from([1e308, [1], {}]),
)  # fmt: skip
records = st.one_of(
    st.just(PLAIN),
    st.dictionaries(st.sampled_from("dlbsx"), anything, max_size=5).map(lambda odd: PLAIN | odd),
    st.dictionaries(st.sampled_from("dlbsx"), anything, max_size=5),
    anything,
)


def told(body: dict[str, Any]) -> Any:
    """What is read of a body, or why it is refused."""
    try:
        return seen(mlflow_json.read(MADE, json.dumps(body).encode(), MOST_ROWS))
    except GatewayError as error:
        return error.code, error.detail, error.members()


def seen(request: Request) -> Any:
    frames = [
        (list(places), each.layout, each.names, each.key, each.rows, list(map(cells, each.columns)))
        for places, each in request.frames
    ]
    return request.rows, frames, request.params, request.at, request.single, request.echo


def cells(column: Any) -> Any:
    is_array = isinstance(column, np.ndarray)
    return (column.dtype, repr(column.tolist())) if is_array else column


@settings(max_examples=300)
@given(rows=st.lists(records, max_size=MOST_ROWS + 1))
def test_both_ways_read_the_same(rows: list[Any]) -> None:
    """With a member beside the records they go the long way, whatever is in them."""
    assert told({"dataframe_records": rows}) == told({"dataframe_records": rows, "params": {}})


@pytest.mark.parametrize("rows", [[PLAIN], [PLAIN, PLAIN]])
def test_plain_records_go_the_short_way(rows: list[Any]) -> None:
    """The shortcut is taken by what it is for."""
    assert mlflow_json._plain(MADE, {"dataframe_records": rows}, MOST_ROWS) is not None
