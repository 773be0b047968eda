"""A property of all signatures: what was captured and is asked again means the same."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gateway.capture.arrow_columns import json_text
from gateway.capture.columns import Shape
from gateway.capture.files import parquet
from gateway.capture.kept import Kept
from gateway.capture.replay import Question, questions_of
from gateway.catalog import Resolution
from gateway.contract import Contract, Request
from gateway.contract.body import wraps
from gateway.contract.types import AnyValue, Field, Rows, TensorOf
from gateway.errors import InvalidInput
from tests.support.catalogs import served, version
from tests.unit.gateway.contract import signatures as sig

_ECHO = served(version(1))


def _kept(contract: Contract, request: Request) -> Kept:
    """A request that was answered by what was asked."""
    (number,) = _ECHO.versions
    return Kept(
        resolution=Resolution(model=_ECHO, version=number, contract=contract),
        asked=None,
        protocol="modelmux",
        request_id="r",
        correlation_id=None,
        at_s=1.0,
        request=request,
        outputs=tuple((places, sig.as_output(frame)) for places, frame in request.frames),
        status=200,
    )


def _questions(contract: Contract, request: Request) -> list[Question]:
    """What the file of that request asks, in the order of its rows."""
    kept = _kept(contract, request)
    data = parquet(Shape(kept.resolution).table([kept])).to_pybytes()
    table = pyarrow.parquet.read_table(io.BytesIO(data), use_threads=False)
    asked = questions_of(table, contract, source="file")
    return sorted(asked, key=lambda each: int(each.told.rpartition(" ")[2]))


def _body(contract: Contract, asked: list[Question]) -> bytes:
    values = [each.value for each in asked]
    body = {"inputs": values, "params": dict(asked[0].params)}
    return (json_text(body if wraps(contract.accepted) else values) or "").encode()


def _cells(request: Request) -> dict[tuple[int, Any], Any]:
    return {
        (place, name): cell
        for places, frame in request.frames
        for name, column in zip(frame.names or ("",), frame.columns, strict=True)
        for place, cell in zip(places, column, strict=True)
    }


def _same(a: Any, b: Any) -> bool:
    """Null, NaN and nothing are one; so are lists and arrays."""
    if isinstance(a, list | tuple | np.ndarray) and isinstance(b, list | tuple | np.ndarray):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return all(_same(a.get(name), b.get(name)) for name in a.keys() | b.keys())
    if a is None or b is None:
        return (a is None or bool(a != a)) and (b is None or bool(b != b))
    return bool(a == b) or bool(a != a and b != b)


def _one(type_: Any) -> Contract:
    return sig.of_rows(Rows((Field("x", type_, True),), ("x",), True))


def _assert_the_same(contract: Contract, request: Request) -> None:
    asked = _questions(contract, request)
    assert len(asked) == request.rows
    if not asked:
        return
    again = contract.parse(_body(contract, asked))
    before, after = _cells(request), _cells(again)
    for place in before.keys() | after.keys():
        assert _same(before.get(place), after.get(place)), place
    if wraps(contract.accepted):
        assert _same(request.params, again.params)


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(st.data(), sig.contracts())
def test_what_was_captured_is_asked_again_as_it_was(data: Any, contract: Contract) -> None:
    """Whatever the signature, no valid request is lost, and its rows say what they said."""
    try:
        request = contract.parse(sig.body(data.draw(sig.bodies(contract))))
    except InvalidInput:
        assume(False)
    _assert_the_same(contract, request)


@pytest.mark.parametrize(
    ("type_", "body"),
    [
        (TensorOf(np.dtype("bool"), (-1, 1, 1)), {"x": [[False]]}),
        (TensorOf(np.dtype("float32"), (-1, 2, -1)), [{"x": [[1.5], [2]]}, {"x": [[3], [4]]}]),
        (TensorOf(np.dtype("str"), (-1, -1)), []),
        (TensorOf(np.dtype("object"), (-1,)), {"x": []}),
        (TensorOf(np.dtype("datetime64[ns]"), (-1, 1)), {"x": ["2000-01-01"]}),
        (AnyValue(), {"x": -(2**63) - 1}),
        (AnyValue(), {"x": {"a": [2**70, 0.1]}}),
    ],
)
def test_what_no_draw_may_find_is_asked_again_too(type_: Any, body: Any) -> None:
    """Tensors of more dimensions, of texts and of anything, and whole numbers of any size."""
    contract = _one(type_)
    _assert_the_same(contract, contract.parse(sig.body(body)))
