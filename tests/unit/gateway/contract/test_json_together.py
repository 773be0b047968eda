"""Several JSON documents read as one."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.contract.json_together import values_of

numbers = st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=4),
    lambda each: (
        st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=2), each, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def torn(draw: st.DrawFn) -> list[bytes]:
    """Documents, some of them torn into several pieces, or run into one."""
    pieces: list[bytes] = []
    for value in draw(st.lists(values, min_size=1, max_size=4)):
        text = json.dumps(value, ensure_ascii=draw(st.booleans())).encode()
        cuts = draw(st.lists(st.integers(0, len(text)), max_size=2)) if draw(st.booleans()) else []
        bounds = [0, *sorted(cuts), len(text)]
        pieces += [text[a:b] for a, b in pairwise(bounds)]
    if len(pieces) > 1 and draw(st.booleans()):
        pieces[:2] = [draw(st.sampled_from([b",", b'","', b"],[", b""])).join(pieces[:2])]
    return pieces


def alone(document: bytes) -> Any:
    """What it says by itself; the class of the error where it says nothing."""
    try:
        return orjson.loads(document)
    except orjson.JSONDecodeError as error:
        return type(error)


@given(torn())
@example([b"1,2", b'"a', b'b"'])
@example([b"[1", b"2]", b"3,4"])
@example([b'{"a":1', b'"b":2}'])
@example([b"", b"1"])
@example([b"1]", b"[2"])
@example([b'"\\', b'"'])
@example([b"\xef\xbb\xbf1", b"2"])
def test_each_document_says_what_it_says_alone(documents: list[bytes]) -> None:
    """Whatever they are, each has its own value, or none has any; with nothing wrong each has."""
    found, each = values_of(documents), [alone(document) for document in documents]
    if orjson.JSONDecodeError in each:
        assert found is None
    else:
        assert found == each


@pytest.mark.parametrize("count", [1, 2, 64])
def test_documents_are_read_in_their_order(count: int) -> None:
    """One value each, however many there are."""
    assert values_of([b'{"a": %d}' % i for i in range(count)]) == [{"a": i} for i in range(count)]
