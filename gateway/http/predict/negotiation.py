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
from gateway.http.predict.version_header import RawHeaders

JSON = b"application/json"
PARAMS_HEADER = "X-Model-Params"
"""Params of a body that has no place for them: a JSON object, in ASCII."""

OF_ARROW = (arrow.STREAM, arrow.FILE, arrow.PARQUET, csv_text.MEDIA_TYPE)
TABLES = (*OF_ARROW, json_columns.MEDIA_TYPE)

HOW_TO_INSTALL = "install modelmux[tables] where the gateway runs"

_ALIASES = {b"application/x-parquet": arrow.PARQUET, b"application/parquet": arrow.PARQUET}
_ANY = (b"*/*", b"application/*", JSON)
_CHARSET = re.compile(rb'charset\s*=\s*"?([^\s;"]+)"?', re.IGNORECASE)
_WEIGHT = re.compile(rb"q\s*=\s*([01](?:\.[0-9]{0,3})?)", re.IGNORECASE)


def form_of(headers: RawHeaders) -> Form:
    """The typed route's form of a request.

    Raises UnsupportedMediaType, NotAcceptable and InvalidHeader.
    """
    declared, accepted = b"", b""
    for name, value in headers:
        if name == b"content-type":
            declared = value
        elif name == b"accept":
            accepted = accepted + b"," + value if accepted else value
    write = TYPED.write if accepted in (b"", b"*/*") else _writer(accepted)
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
        raise UnsupportedMediaType(f"Send the body as one of {known}.")
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


def _writer(accepted: bytes) -> Write:
    """Of what the caller prefers. Who asks for nothing that is known gets JSON (RFC 9110, section
    12.4.1)."""
    best, weight_of_best = JSON, 0.0
    for each in accepted.split(b","):
        media_range, _, parameters = each.partition(b";")
        media_type = media_range.strip().lower()
        media_type = _ALIASES.get(media_type, media_type)
        weight = _WEIGHT.search(parameters)
        wanted = float(weight[1]) if weight else 1.0
        if wanted > weight_of_best and (media_type in TABLES or media_type in _ANY):
            best, weight_of_best = media_type, wanted
    if best == json_columns.MEDIA_TYPE:
        return json_columns.write
    if best not in OF_ARROW:
        return TYPED.write
    if not has_arrow():
        raise NotAcceptable(f"This gateway writes no {best.decode('ascii')}: {HOW_TO_INSTALL}.")
    if best == csv_text.MEDIA_TYPE:
        return csv_text.write
    return partial(arrow.write, media_type=best)
