"""Every response carries `X-Request-ID`: the caller's where it is a sane token, else a new one.

A plain ASGI middleware, because it runs on the hot path.
"""

from __future__ import annotations

import random
import re
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

REQUEST_ID_HEADER = "X-Request-ID"

_KEY = "modelmux.request_id"
_HEADER = b"x-request-id"
_SANE = re.compile(r"[\x21-\x7e]{1,128}")


class RequestIdentity:
    """Gives each HTTP request an id and answers with it.

    With `answers=False` the id is left to a server in front that answers with it anyway (Ray Serve
    does); a header that came twice would be two answers to one question.
    """

    def __init__(self, app: ASGIApp, *, answers: bool = True) -> None:
        self._app = app
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its id in the scope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope)
        if not self._answers:
            await self._app(scope, receive, send)
            return

        async def send_with_id(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)


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
