"""What a request's `Accept` says (RFC 9110, section 12.5.1). Must not import ray or mlflow."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gateway.http.predict.version_header import RawHeaders

ANYTHING = b"*/*"

_WEIGHT = re.compile(rb"q\s*=\s*([01](?:\.[0-9]{0,3})?)", re.IGNORECASE)


def accepted(headers: RawHeaders) -> bytes:
    """The whole header, whose lines are one list."""
    return b",".join(value for name, value in headers if name == b"accept")


def weights_of(accept: bytes) -> dict[bytes, float]:
    """The weight of each media range, as they were named: of two of one name the first counts, and
    parameters other than the weight are overlooked."""
    weights: dict[bytes, float] = {}
    for each in accept.split(b","):
        media_range, *parameters = (part.strip() for part in each.split(b";"))
        found = next(filter(None, map(_WEIGHT.fullmatch, parameters)), None)
        if media_range:
            weights.setdefault(media_range.lower(), float(found[1]) if found else 1.0)
    return weights


def weight(weights: Mapping[bytes, float], media_type: bytes) -> float:
    """How much a type is wanted: by the range that says most of it."""
    kind = media_type.partition(b"/")[0]
    for media_range in (media_type, kind + b"/*", ANYTHING):
        if media_range in weights:
            return weights[media_range]
    return 0.0
