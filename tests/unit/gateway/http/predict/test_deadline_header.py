"""`X-Request-Timeout`: what it means, and what is refused."""

from __future__ import annotations

import re

import pytest

from gateway.errors import InvalidHeader
from gateway.http.predict.deadline_header import TIMEOUT_PATTERN, timeout_of

NAME = b"x-request-timeout"


@pytest.mark.parametrize(
    ("value", "seconds"), [("1", 1.0), ("2.5", 2.5), ("0.001", 0.001), ("007", 7.0)]
)
def test_a_decimal_number_of_seconds_is_taken(value: str, seconds: float) -> None:
    """A number above zero means that many seconds, and the documented pattern agrees."""
    assert timeout_of([(b"accept", b"*/*"), (NAME, value.encode())]) == seconds
    assert re.search(TIMEOUT_PATTERN, value)


@pytest.mark.parametrize(
    "value",
    ["", " ", "0", "0.0", "00", "-1", "+1", "nan", "inf", "Infinity", "1e999", "1e3", "1_0", "0x1",
     "1,5", ".5", "5.", "1 2", "1s", "9" * 10, "0." + "0" * 400 + "1", "٣", "1.2.3"],
)  # fmt: skip
def test_anything_else_is_refused(value: str) -> None:
    """What is no plain number of seconds above zero is 400, and the documented pattern agrees."""
    with pytest.raises(InvalidHeader):
        timeout_of([(NAME, value.encode())])
    assert re.search(TIMEOUT_PATTERN, value, re.ASCII) is None


def test_none_is_none_and_two_are_too_many() -> None:
    """Without the header nothing is asked for; twice, even with one value, is refused."""
    assert timeout_of([(b"accept", b"*/*")]) is None
    with pytest.raises(InvalidHeader):
        timeout_of([(NAME, b"1"), (NAME, b"1")])
