"""Bytes that mean harm, and bytes that are almost a request: read or refused, and soon."""

from __future__ import annotations

import itertools
import os
import time
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.contract import Contract, Request
from gateway.errors import InvalidInput, MalformedJson, PayloadTooLarge
from tests.support.catalogs import signature
from tests.unit.gateway.contract import signatures as sig
from tests.unit.gateway.contract.test_plain_table import good, long, short

# `make fuzz` multiplies how many examples are tried.
_EFFORT = int(os.environ.get("FUZZ_EFFORT", "1"))
_MILLION = 1_000_000
# Far above what each takes on an idle machine (0.3 s at most), far below what n² would be.
_SOON_S = 5.0

thorough = settings(
    max_examples=100 * _EFFORT,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

NUMBER = Contract.from_signature(orjson.loads(signature(("x", "double"))))
PLAIN = Contract.from_signature(
    orjson.loads(
        signature(
            ("d", "double"), ("f", "float"), ("l", "long"), ("i", "integer"), ("b", "boolean"),
            ("s", "string"), ("o", "double", False),
        )
    )
)  # fmt: skip

# What JSON texts are broken with: structure, escapes, numbers at the edge, bytes that aren't UTF-8.
fragments = st.sampled_from(
    [b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u", b"\\ud800", b"\\udc00", b"\\u0000",
     b"NaN", b"Infinity", b"-", b"-0", b"1e400", b"1e-400", b"0x1", b"01", b".5", b"5.", b"1_0",
     b"9" * 400, b"null", b"true", b"'", b"//", b"/**/", b"\x00", b"\x1f", b"\xff", b"\xc0\xaf",
     b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\xfe\xff", "\u2028".encode()]
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, texts: st.SearchStrategy[bytes]) -> bytes:
    """A JSON text with bytes put in, taken out, changed or repeated."""
    text = draw(texts)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 8)))
        middle = draw(fragments | st.binary(max_size=2) | st.just(text[start:end] * 2))
        text = text[:start] + middle + text[end:]
    return text


def outcome(contract: Contract, body: bytes) -> Request | MalformedJson | InvalidInput:
    """What `parse` gives or raises; nothing else may come out of it."""
    try:
        return contract.parse(body)
    except (MalformedJson, InvalidInput) as error:
        return error


@thorough
@given(st.data(), sig.contracts())
def test_a_damaged_body_is_read_or_refused(data: Any, contract: Contract) -> None:
    """Whatever happens to a valid body on its way, nothing but a request or a refusal comes out,
    and a refusal's places are pointers (RFC 6901) that JSON can say."""
    body = data.draw(damaged(sig.bodies(contract).map(sig.body)))
    found = outcome(contract, body)
    if isinstance(found, Request):
        assert sum(frame.rows for _, frame in found.frames) == found.rows
    elif isinstance(found, InvalidInput):
        assert 1 <= len(found.violations) <= InvalidInput.MAX_VIOLATIONS
        assert all(v.pointer == "" or v.pointer[0] == "/" for v in found.violations)


@thorough
@given(damaged((good | st.lists(good, max_size=3)).map(sig.body)))
def test_both_ways_agree_on_damaged_rows(body: bytes) -> None:
    """Two JSON parsers read bodies; what the shorter way takes of a damaged one, the longer one
    takes with the same values: no text means two things."""
    frame = short(PLAIN, body)
    if frame is not None:
        theirs = long(PLAIN, body)
        assert list(map(list, frame.columns)) == list(map(list, theirs.columns))


BOMBS = {
    "lists in lists": b"[" * _MILLION,
    "lists in lists, closed": b"[" * 100_000 + b"]" * 100_000,
    "objects in objects": b'{"x":' * 100_000 + b"1" + b"}" * 100_000,
    "a number of many digits": b'{"x":' + b"1" * 100_000 + b"}",
    "a fraction of many digits": b'{"x":0.' + b"1" * 100_000 + b"}",
    "an exponent of many digits": b'{"x":1e' + b"9" * 100_000 + b"}",
    "many empty objects": b"[" + b",".join([b"{}"] * _MILLION) + b"]",
    "many nulls": b"[" + b",".join([b"null"] * _MILLION) + b"]",
    "many wrong rows": b"[" + b",".join([b'{"x":"a"}'] * 300_000) + b"]",
    "many members": b"{" + b",".join(b'"k%d":1' % n for n in range(300_000)) + b"}",
    "one member many times": b"{" + b",".join([b'"x":1'] * 300_000) + b"}",
    "many backslashes": b'{"x":"' + b"\\\\" * _MILLION + b'"}',
    "many escapes": b'{"' + b"\\u0041" * 300_000 + b'":1}',
    "a long name": b'{"' + b"x" * 5 * _MILLION + b'":1}',
    "only space": b" " * 5 * _MILLION,
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_answered_soon(bomb: bytes) -> None:
    """Megabytes that were made to take long are read or refused in a moment."""
    started = time.process_time()
    outcome(NUMBER, bomb)
    assert time.process_time() - started < _SOON_S


TENSOR = Contract.from_signature(
    {"inputs": '[{"type":"tensor","tensor-spec":{"dtype":"float32","shape":[-1,-1,-1]}}]'}
)


def test_too_many_rows_are_not_looked_at() -> None:
    """A list of more rows than there may be is refused for that, whatever is in it and whichever
    form it has; where a list may be one row, a long one is."""
    many = b"[" + b",".join([b"[]"] * 11) + b"]"
    for body in (many, b'{"inputs":' + many + b"}"):
        with pytest.raises(PayloadTooLarge):
            NUMBER.parse(body, max_rows=10)
    with pytest.raises(PayloadTooLarge):
        TENSOR.parse(b"[" + b",".join([b"[[1]]"] * 11) + b"]", max_rows=10)
    assert TENSOR.parse(b"[" + b",".join([b"[1]"] * 11) + b"]", max_rows=10).rows == 1


def test_deep_shapes_take_no_longer_than_the_reading() -> None:
    """Hundreds of thousands of lists of one number are one row of a tensor, in a moment."""
    started = time.process_time()
    ((_, frame),) = TENSOR.parse(b"[[" + b",".join([b"[1]"] * 300_000) + b"]]").frames
    assert frame.columns[0].shape == (1, 300_000, 1)
    assert time.process_time() - started < _SOON_S


@pytest.mark.parametrize(
    "pair",
    # Equal under hashes of strings that are known to be used without a seed: times 31, times 33.
    [("Aa", "BB"), ("Ez", "FY")],
)
def test_names_that_collide_take_no_longer(pair: tuple[str, str]) -> None:
    """Members whose names were chosen to collide cost about what any names cost."""
    keys = ["".join(each) for each in itertools.product(pair, repeat=16)]
    any_names = [f"{number:032x}" for number in range(len(keys))]
    assert _parsing_s(keys) < 10 * _parsing_s(any_names) + 0.1


def _parsing_s(names: list[str]) -> float:
    body = orjson.dumps(dict.fromkeys(names, 1))
    started = time.process_time()
    outcome(NUMBER, body)
    return time.process_time() - started


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"x":1e400}', InvalidInput), (b'{"x":-1e400}', InvalidInput),
        (b'{"x":NaN}', MalformedJson), (b'{"x":Infinity}', MalformedJson),
        (b'{"x":-Infinity}', MalformedJson),
        ('{"x":1}'.encode("utf-16"), MalformedJson), (b'{"x":1}\x00', MalformedJson),
        (b'{"\xff":1}', MalformedJson), (b'{"\xed\xa0\x80":1}', MalformedJson),
        (b'{"\\ud800":1}', MalformedJson), (b'{"x":"\\ud800"}', MalformedJson),
        (b'{"x":1}{"x":2}', MalformedJson), (b'{"x":01}', MalformedJson),
        (b"{'x':1}", MalformedJson), (b'{"x":1,}', MalformedJson), (b"// 1", MalformedJson),
    ],
)  # fmt: skip
def test_what_is_almost_json_is_refused(body: bytes, error: type[Exception]) -> None:
    """What other parsers let through (a mark of byte order, half a character, NaN, a comma too
    many) is refused; a number that is JSON and too large is one that doesn't fit."""
    with pytest.raises(error):
        NUMBER.parse(body)


def test_the_last_of_two_members_of_one_name_counts() -> None:
    """RFC 8259 leaves it open; both ways read it alike."""
    body = b'{"x":1,"x":2}'
    assert list(NUMBER.parse(body).frames[0][1].columns[0]) == [2.0]
    assert list(long(NUMBER, body).columns[0]) == [2.0]


def test_minus_zero_keeps_its_sign_only_as_a_fraction() -> None:
    """-0 is the integer 0, as JSON has no negative zero among whole numbers for both parsers."""
    assert str(NUMBER.parse(b'{"x":-0}').frames[0][1].columns[0][0]) == "0.0"
    assert str(NUMBER.parse(b'{"x":-0.0}').frames[0][1].columns[0][0]) == "-0.0"
