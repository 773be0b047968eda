"""Which form a request's body has and its answer will have: `Content-Type`, `Accept`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import orjson

from gateway.contract import TYPED, Form, Read, Write
from gateway.errors import InvalidHeader, NotAcceptable, UnsupportedMediaType
from gateway.forms import arrow, csv_text, json_columns
from gateway.http.predict import accept, event_stream
from gateway.http.predict.version_header import RawHeaders

JSON = b"application/json"
EVENTS = event_stream.MEDIA_TYPE.encode()
PARAMS_HEADER = "X-Model-Params"
"""Params of a body that has no place for them: a JSON object, in ASCII."""

OF_ARROW = (arrow.STREAM, arrow.FILE, arrow.PARQUET, csv_text.MEDIA_TYPE)
TABLES = (*OF_ARROW, json_columns.MEDIA_TYPE)

HOW_TO_INSTALL = "install modelmux[tables] where the gateway runs"

_ALIASES = {b"application/x-parquet": arrow.PARQUET, b"application/parquet": arrow.PARQUET}
# What is meant by who names no type: the plainest of the kind.
_MEANT = {accept.ANYTHING: JSON, b"application/*": JSON, b"text/*": csv_text.MEDIA_TYPE}
_NAMED = frozenset({JSON, EVENTS, *TABLES})
_CHARSET = re.compile(rb'charset\s*=\s*"?([^\s;"]+)"?', re.IGNORECASE)


def form_of(headers: RawHeaders) -> Form:
    """The typed route's form of a request.

    Raises UnsupportedMediaType, NotAcceptable and InvalidHeader.
    """
    declared = b""
    for name, value in headers:
        if name == b"content-type":
            declared = value
    accepted = accept.accepted(headers)
    write = TYPED.write if accepted in (b"", accept.ANYTHING) else _writer(accepted)
    # A charset has no meaning for JSON (RFC 8259, section 11).
    if declared == JSON or declared.partition(b";")[0].strip().lower() == JSON:
        return TYPED if write is TYPED.write else Form(read=TYPED.read, write=write)
    return Form(read=_reader(declared, headers), write=write)


def media_type_of(declared: bytes) -> bytes:
    """The media type of a `Content-Type`; raises UnsupportedMediaType for a text that isn't
    UTF-8."""
    media_type, _, parameters = declared.partition(b";")
    charset = _CHARSET.search(parameters)
    if charset is not None and charset[1].lower() not in (b"utf-8", b"utf8", b"us-ascii"):
        raise UnsupportedMediaType("Send texts in UTF-8.")
    lower = media_type.strip().lower()
    return _ALIASES.get(lower, lower)


def table_reader(media_type: bytes, *, as_mlflow: bool, params: Any = None) -> Read | None:
    """How a table of that type is read; None where it is none. Raises UnsupportedMediaType where
    PyArrow is missing."""
    if media_type not in OF_ARROW:
        return None
    if not has_arrow():
        name = media_type.decode("ascii")
        raise UnsupportedMediaType(f"This gateway reads no {name}: {HOW_TO_INSTALL}.")
    if media_type == csv_text.MEDIA_TYPE:
        return partial(csv_text.read, params=params, as_mlflow=as_mlflow)
    return partial(arrow.read, media_type=media_type, params=params, as_mlflow=as_mlflow)


@cache
def has_arrow() -> bool:
    """Whether PyArrow is installed."""
    return find_spec("pyarrow") is not None


def _reader(declared: bytes, headers: RawHeaders) -> Read:
    media_type = media_type_of(declared)
    if media_type == JSON:
        return TYPED.read
    params = _params_of(headers)
    if media_type == json_columns.MEDIA_TYPE:
        return partial(json_columns.read, params=params)
    found = table_reader(media_type, as_mlflow=False, params=params)
    if found is None:
        known = ", ".join(each.decode("ascii") for each in (JSON, *TABLES))
        raise UnsupportedMediaType(f"Send the body as one of {known}.", accept=known)
    return found


def _params_of(headers: RawHeaders) -> Mapping[str, Any] | None:
    name = PARAMS_HEADER.lower().encode()
    given = [value for header, value in headers if header == name]
    if not given:
        return None
    try:
        value = orjson.loads(given[0])
    except orjson.JSONDecodeError:
        value = None
    if len(given) > 1 or not isinstance(value, dict):
        raise InvalidHeader(f"{PARAMS_HEADER} is one JSON object.")
    return value


def takes_events(headers: RawHeaders) -> bool:
    """Whether the caller asks for a stream of events; one who takes anything doesn't."""
    accepted = accept.accepted(headers)
    return EVENTS in accepted.lower() and _preferred(accepted) == EVENTS


def _preferred(accepted: bytes) -> bytes:
    """What the caller wants most of all that there is; of what is wanted equally the first that was
    named. Who wants nothing of it gets JSON (RFC 9110, section 12.4.1)."""
    weights = {_ALIASES.get(each, each): w for each, w in accept.weights_of(accepted).items()}
    best, weight_of_best = JSON, 0.0
    for each in weights:
        media_type = _MEANT.get(each, each)
        if media_type != each and media_type in OF_ARROW and not has_arrow():
            continue  # nobody asked for it by name
        weight = accept.weight(weights, media_type) if media_type in _NAMED else 0.0
        if weight > weight_of_best:
            best, weight_of_best = media_type, weight
    return best


def _writer(accepted: bytes) -> Write:
    best = _preferred(accepted)
    if best == json_columns.MEDIA_TYPE:
        return json_columns.write
    if best not in OF_ARROW:
        return TYPED.write
    if not has_arrow():
        raise NotAcceptable(f"This gateway writes no {best.decode('ascii')}: {HOW_TO_INSTALL}.")
    if best == csv_text.MEDIA_TYPE:
        return csv_text.write
    return partial(arrow.write, media_type=best)
