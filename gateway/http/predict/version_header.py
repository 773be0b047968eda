"""Which version a request asks for: `X-Model-Version`, or Ray's `serve_multiplexed_model_id`.

Both mean the same (Ray Serve's documentation, "Model Multiplexing"); both with different values
is an error, not a guess.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from gateway.errors import ConflictingVersion

VERSION_HEADER = "X-Model-Version"
RAY_HEADER = "serve_multiplexed_model_id"

RawHeaders: TypeAlias = Iterable[tuple[bytes, bytes]]
"""A request's headers as ASGI has them: names in lower case, in the order of the request."""

# Ray takes dashes for underscores.
RAY_HEADERS = frozenset({RAY_HEADER.encode(), RAY_HEADER.replace("_", "-").encode()})
SELECTING = RAY_HEADERS | {VERSION_HEADER.lower().encode()}
"""The headers that name a version, as ASGI has them."""


def selector_of(headers: RawHeaders) -> str | None:
    """The version number, alias or `latest` that the headers ask for; None where they don't.

    A value is UTF-8, or Latin-1 where it isn't that: MLflow takes letters of every script for an
    alias. Raises ConflictingVersion where they name more than one.
    """
    given = [value for name, value in headers if name in SELECTING]
    if not given:
        return None
    values = {_text(value).strip() for value in given} - {""}
    if len(values) > 1:
        raise ConflictingVersion(
            f"{VERSION_HEADER} and {RAY_HEADER} name more than one version; send one of them."
        )
    return values.pop() if values else None


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
