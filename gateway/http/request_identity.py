"""A request's id: the caller's `X-Request-ID` where it is a sane token, else a new one."""

from __future__ import annotations

import random
import re

from starlette.types import Scope

REQUEST_ID_HEADER = "X-Request-ID"

_KEY = "modelmux.request_id"
_HEADER = b"x-request-id"
_SANE = re.compile(r"[\x21-\x7e]{1,128}")


def request_id_of(scope: Scope) -> str:
    """The id of the request in `scope`, where it is kept from the first time that it is asked for:
    a prediction that goes well never needs it."""
    known = scope.get(_KEY)
    if known is None:
        given = next((value for name, value in scope["headers"] if name == _HEADER), b"")
        sent = given.decode("latin-1")
        known = scope[_KEY] = sent if is_sane(sent) else _new_id()
    return str(known)


def _new_id() -> str:
    """32 hex digits; unlike `uuid4` without a call of the system, since ids are no secrets."""
    return f"{random.getrandbits(128):032x}"


def is_sane(request_id: str) -> bool:
    """Whether the id may be echoed into a header and a log line: visible ASCII, bounded."""
    return _SANE.fullmatch(request_id) is not None
