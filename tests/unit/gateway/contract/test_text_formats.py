"""How moments, bytes and pointers are written in JSON."""

from __future__ import annotations

import base64
import calendar
import datetime as dt
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contract import text_formats as notation

quick = settings(max_examples=200)


def test_the_pattern_knows_the_calendar() -> None:
    """Of all days of all months of all years, exactly the real ones match."""
    pattern = re.compile(notation.DATETIME_PATTERN)
    for year in range(1670, 2270):
        for month, day in [
            (1, 31),
            (2, 28),
            (2, 29),
            (2, 30),
            (4, 30),
            (4, 31),
            (12, 31),
            (12, 32),
        ]:
            real = 1678 <= year <= 2261 and day <= calendar.monthrange(year, month)[1]
            assert bool(pattern.search(f"{year}-{month:02}-{day:02}")) == real


@quick
@given(st.datetimes(dt.datetime(1678, 1, 2), dt.datetime(2261, 12, 30)), st.integers(-1439, 1439))
def test_moments_are_read_as_python_reads_them(moment: dt.datetime, minutes: int) -> None:
    """What Python writes is read as the same moment, in UTC."""
    aware = moment.replace(tzinfo=dt.timezone(dt.timedelta(minutes=minutes)))
    utc = aware.astimezone(dt.UTC).replace(tzinfo=None)
    assert notation.read_datetime(aware.isoformat()) == np.datetime64(utc)
    assert notation.read_datetime(moment.isoformat()) == np.datetime64(moment)


@quick
@given(st.integers(-9214560000000000000, 9214646399999999999))
def test_written_moments_are_read_back(nanoseconds: int) -> None:
    """Writing and reading a moment loses nothing, and what is written matches the pattern."""
    moment = np.datetime64(nanoseconds, "ns")
    (text,) = notation.write_datetimes(np.array([moment]))
    assert notation.read_datetime(text) == moment


@quick
@given(
    st.text("AQgYW=+/-_ \r\n", max_size=9)
    | st.binary(max_size=9).map(lambda b: base64.b64encode(b).decode())
    | st.binary(max_size=90).map(lambda b: base64.encodebytes(b).decode())
)
def test_base64_is_what_the_pattern_says(text: str) -> None:
    """A string is read as bytes iff it matches the published pattern."""
    try:
        value = notation.read_base64(text)
    except ValueError:
        assert re.search(notation.BASE64_PATTERN, text) is None
    else:
        assert re.search(notation.BASE64_PATTERN, text)
        assert len(notation.write_base64(value)) == len(re.sub(r"[\r\n]", "", text))


@pytest.mark.parametrize("unit", ["Y", "D", "s", "ms", "ns"])
def test_units_of_moments(unit: str) -> None:
    """Every unit is written alike; far years are an error and not another moment."""
    near = np.array(["2020-01-01", "NaT"], dtype=f"M8[{unit}]")
    assert notation.write_datetimes(near) == ["2020-01-01T00:00:00", None]
    if unit != "ns":
        with pytest.raises(ValueError):  # noqa: PT011  # it has no text: nobody reads it
            notation.write_datetimes(np.array(["2300-01-01"], dtype=f"M8[{unit}]"))


def test_pointers_are_escaped() -> None:
    """RFC 6901: the empty path is the whole, ~ and / are escaped."""
    assert notation.pointer(()) == ""
    assert notation.pointer(("a/b", 0, "~1", "")) == "/a~1b/0/~01/"
