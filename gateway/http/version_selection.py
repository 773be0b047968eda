"""Which version a request asks for: `X-Model-Version`, or Ray's `serve_multiplexed_model_id`.

Both mean the same (Ray Serve's documentation, "Model Multiplexing"); both with different values
is an error, not a guess.
"""

from __future__ import annotations

from starlette.datastructures import Headers

from gateway.errors import ConflictingVersion

VERSION_HEADER = "X-Model-Version"
RAY_HEADER = "serve_multiplexed_model_id"


def selector_of(headers: Headers) -> str | None:
    """The version number, alias or `latest` that the headers ask for; None where they don't.

    Raises ConflictingVersion where they name more than one.
    """
    values = {
        value.strip()
        for header in (VERSION_HEADER, RAY_HEADER)
        for value in headers.getlist(header)
        if value.strip()
    }
    if len(values) > 1:
        raise ConflictingVersion(
            f"{VERSION_HEADER} and {RAY_HEADER} name more than one version; send one of them."
        )
    return values.pop() if values else None
