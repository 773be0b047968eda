"""How long a caller is ready to wait: `X-Request-Timeout`, in seconds, decimals allowed.

It lowers the deadline that holds without it and never raises it (`gateway.prediction`).
"""

from __future__ import annotations

import re

from gateway.errors import InvalidHeader
from gateway.http.predict.version_header import RawHeaders

TIMEOUT_HEADER = "X-Request-Timeout"

_NAME = TIMEOUT_HEADER.lower().encode()

TIMEOUT_PATTERN = r"^(?!0+(\.0+)?$)[0-9]{1,9}(\.[0-9]{1,9})?$"
"""A decimal number above zero, without sign or exponent (ECMA 262, for JSON Schema too)."""

_SECONDS = re.compile(TIMEOUT_PATTERN.encode().removesuffix(b"$"))


def timeout_of(headers: RawHeaders) -> float | None:
    """The seconds that the caller is ready to wait; None where the headers don't say.

    Raises InvalidHeader for what is no decimal number above zero, and where there are several.
    """
    given = [value for name, value in headers if name == _NAME]
    if not given:
        return None
    if len(given) == 1 and _SECONDS.fullmatch(given[0]):
        return float(given[0])
    raise InvalidHeader(f"{TIMEOUT_HEADER} is one number of seconds above 0, such as 2.5.")
