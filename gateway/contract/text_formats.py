"""How JSON strings write what JSON has no word for: moments in time, bytes, and pointers.

The regular expressions here are both what the validator applies and the `pattern` the JSON Schema
publishes, so the two can't disagree. They are written so that Python's `re` and ECMA-262 read
them alike: no `\\d` (matches other digits), and `$(?!\\n)` (Python's `$` allows a last newline).
"""

from __future__ import annotations

import binascii
import datetime as dt
import re
from collections.abc import Iterable

import numpy as np

_END = r"$(?!\n)"
# The years that lie wholly within datetime64[ns], which is what MLflow casts to.
FIRST_YEAR, LAST_YEAR = 1678, 2261
_YEAR = "(?:167[89]|16[89][0-9]|1[7-9][0-9]{2}|2[01][0-9]{2}|22[0-5][0-9]|226[01])"
_MONTH_AND_DAY = (
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_LEAP_YEAR = (
    "(?:16(?:8[048]|9[26])"
    "|(?:1[789]|2[01])(?:0[48]|[2468][048]|[13579][26])"
    "|2000|22(?:0[48]|[24][048]|[135][26]|60))"
)
_HOUR = "(?:[01][0-9]|2[0-3])"
_TIME = rf"{_HOUR}:[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{{1,9}})?)?"

DATETIME_PATTERN = (
    f"^(?:{_YEAR}-{_MONTH_AND_DAY}|{_LEAP_YEAR}-02-29)"
    f"(?:[T ]{_TIME}(?:Z|[+-]{_HOUR}:[0-5][0-9])?)?{_END}"
)
_BREAKS = r"[\r\n]*"
_DIGITS = rf"(?:[A-Za-z0-9+/]{_BREAKS})"
BASE64_PATTERN = (
    rf"^{_BREAKS}(?:{_DIGITS}{{4}})*"
    rf"(?:{_DIGITS}{{2}}={_BREAKS}=|{_DIGITS}{{3}}=)?{_BREAKS}{_END}"
)

_DATETIME = re.compile(DATETIME_PATTERN)
_OF_DAYS = frozenset("YMWD")
"""The units of NumPy's moments that are days or longer."""


def read_datetime(text: object) -> np.datetime64:
    """The moment as naive UTC in nanoseconds; raises `ValueError`. No offset means UTC."""
    if not isinstance(text, str) or _DATETIME.fullmatch(text) is None:
        raise ValueError
    if text[-1] == "Z":
        return np.datetime64(text[:-1], "ns")
    if len(text) > len("2020-01-01T00:00") and text[-6] in "+-":
        return np.datetime64(text[:-6], "ns") - _offset(text[-6:])
    return np.datetime64(text, "ns")


def read_with_offset(text: str) -> np.datetime64 | dt.datetime:
    """The moment with the offset that the text has, cut to its microseconds; as `read_datetime`
    where it has none. Raises `ValueError`."""
    moment = read_datetime(text)
    aware = dt.datetime.fromisoformat(text)
    return moment if aware.tzinfo is None else aware


def _offset(text: str) -> np.timedelta64:
    minutes = int(text[1:3]) * 60 + int(text[4:6])
    return np.timedelta64(-minutes if text[0] == "-" else minutes, "m")


def write_datetimes(moments: np.ndarray) -> list[str | None]:
    """ISO 8601 without offset, of a 1-D datetime64 array; NaT is None.

    The seconds are always there, a fraction only where it isn't zero. Raises `ValueError` for
    years that a request could not send either.
    """
    missing = np.isnat(moments)
    if not are_in_range(moments)[~missing].all():
        raise ValueError
    texts = np.datetime_as_string(moments.astype("M8[ns]"), unit="ns").tolist()
    trimmed = [text.rstrip("0").rstrip(".") if "." in text else text for text in texts]
    return [None if gone else text for text, gone in zip(trimmed, missing.tolist(), strict=True)]


def write_moment(moment: np.datetime64 | dt.datetime) -> str:
    """What isn't declared as a moment, as MLflow's server writes it: a day alone without a time of
    day, a fraction in 6 digits or 9, an offset as it is. Raises `ValueError` as `write_datetimes`
    does."""
    if isinstance(moment, dt.datetime):
        write_datetimes(np.array([moment.replace(tzinfo=None)], "M8[us]"))
        return moment.isoformat()
    (text,) = write_datetimes(np.array([moment]))
    if text is None:
        raise ValueError
    if np.datetime_data(moment)[0] in _OF_DAYS:
        return text[: len("2020-01-01")]
    seconds, point, fraction = text.partition(".")
    return seconds + point + fraction.ljust(6 if len(fraction) <= 6 else 9, "0") if point else text


def are_in_range(moments: np.ndarray) -> np.ndarray:
    """Of each moment whether it is one, of a year that a request can send."""
    years = moments.astype("M8[Y]").astype(np.int64) + 1970  # NaT is of a year far below
    return (years >= FIRST_YEAR) & (years <= LAST_YEAR)


def read_base64(text: object) -> bytes:
    """The bytes of standard base64 with its padding (RFC 4648, section 4), in lines or in one;
    raises `ValueError`.

    Accepts exactly what `BASE64_PATTERN` does, without running it over megabytes. MLflow writes
    lines into input examples (`base64.encodebytes`).
    """
    if not isinstance(text, str):
        raise ValueError
    if "\n" in text or "\r" in text:
        text = text.replace("\n", "").replace("\r", "")
    if len(text) % 4 or text.endswith("==="):
        raise ValueError
    return binascii.a2b_base64(text, strict_mode=True)


def write_base64(value: bytes) -> str:
    """Standard base64 with its padding."""
    return binascii.b2a_base64(value, newline=False).decode("ascii")


def pointer(parts: Iterable[object]) -> str:
    """The RFC 6901 JSON pointer of a path."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)
