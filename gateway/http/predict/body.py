"""Reading a request's body: its declared type, its size and its time, before anything is parsed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.types import Receive

from gateway.admission import Visit
from gateway.errors import PayloadTooLarge, RequestTimeout, UnsupportedMediaType
from gateway.http.predict.disconnect import CallerLeft
from gateway.http.predict.version_header import RawHeaders

_JSON = b"application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Bounds on a request's body: its size in bytes, and the seconds in which it must be there."""

    max_body_bytes: int
    body_timeout_s: float = 60.0


async def read_json_body(
    headers: RawHeaders, receive: Receive, *, limits: HttpLimits, visit: Visit
) -> bytes:
    """The whole body.

    Raises UnsupportedMediaType, and before all of it is read PayloadTooLarge, Overloaded,
    RequestTimeout and CallerLeft.
    """
    max_bytes = limits.max_body_bytes
    declared, length = b"", b""
    for name, value in headers:
        if name == b"content-type":
            declared = value
        elif name == b"content-length":
            length = value
        elif name == b"content-encoding" and value.strip().lower() != b"identity":
            raise UnsupportedMediaType("Send the body as it is, without a Content-Encoding.")
    if declared != _JSON and declared.partition(b";")[0].strip().lower() != _JSON:
        raise UnsupportedMediaType("Send the body as application/json.")
    if length.isdigit() and int(length) > max_bytes:
        raise _too_large(max_bytes)
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            return await _received(receive, max_bytes, visit)
    except TimeoutError:
        limit = f"The limit is {limits.body_timeout_s:g} s for the whole body."
        raise RequestTimeout(limit) from None


async def _received(receive: Receive, max_bytes: int, visit: Visit) -> bytes:
    chunks: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerLeft
        chunk = message.get("body", b"")
        if visit.body_bytes + len(chunk) > max_bytes:
            raise _too_large(max_bytes)
        visit.hold_bytes(len(chunk))
        chunks.append(chunk)
        if not message.get("more_body", False):
            visit.has_come()
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The limit is {max_bytes} bytes.")
