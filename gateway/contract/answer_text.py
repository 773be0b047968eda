"""The JSON of what a model answered, and why there is none.

Owns the words for what can't be written. Must not import anything of HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import orjson

from gateway.errors import InvalidModelOutput

_HALF_A_CHARACTER = (
    "A text in the model's answer has half a character (an unpaired surrogate), "
    "which UTF-8 can't say."
)


def dumped(value: Any) -> bytes:
    """The JSON of an answer, NaN as null; raises InvalidModelOutput, which says why."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except (TypeError, RecursionError):
        with in_utf8():
            _look_for_halves(value)
        raise InvalidModelOutput("The model's answer is nothing that JSON can say.") from None


@contextmanager
def in_utf8() -> Iterator[None]:
    """Raises InvalidModelOutput where a text that is written within has no form in UTF-8."""
    try:
        yield
    except UnicodeEncodeError:
        raise InvalidModelOutput(_HALF_A_CHARACTER) from None


def _look_for_halves(value: Any) -> None:
    """Raises UnicodeEncodeError where a text of the value has half a character. orjson says by the
    text of its error alone what it was that it can't write."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=_plain)
    except (TypeError, ValueError, RecursionError):
        return  # for another reason
    text.encode()


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else None
