"""Which answers are Ray's own words: plain text, where the gateway's errors are problem documents.

Apart from both middlewares that ask, as Ray's proxy loads one and the ingress' process the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def is_plain(start: Mapping[str, Any]) -> bool:
    """Whether an ASGI `http.response.start` message begins an answer in plain text."""
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/plain")
        for name, value in start.get("headers", ())
    )
