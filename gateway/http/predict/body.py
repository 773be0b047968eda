"""Reading a request's body: its size and its time, before anything is parsed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.types import Receive

from gateway.admission import Visit
from gateway.errors import RequestTimeout
from gateway.http.predict.compression import too_many_bytes, unpacker
from gateway.http.predict.disconnect import CallerLeft
from gateway.http.predict.version_header import RawHeaders


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Bounds on a request's body: its size in bytes, and the seconds in which it must be there."""

    max_body_bytes: int
    body_timeout_s: float = 60.0


async def read_body(
    headers: RawHeaders, receive: Receive, *, limits: HttpLimits, visit: Visit
) -> bytes:
    """The whole body, as it was before a `Content-Encoding`; the limit is of that.

    Raises UnsupportedMediaType for an encoding that isn't known, and before all of it is read
    PayloadTooLarge, Overloaded, RequestTimeout and CallerLeft; MalformedBody for what isn't in its
    encoding.
    """
    max_bytes = limits.max_body_bytes
    length, coding = b"", b""
    for name, value in headers:
        if name == b"content-length":
            length = value
        elif name == b"content-encoding":
            coding += b"," + value  # several lines are one list (RFC 9110, section 5.3)
    unpack = unpacker(coding) if coding else None
    if length_of(length) > max_bytes:
        raise too_many_bytes(max_bytes)
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            body = await _received(receive, max_bytes, visit)
    except TimeoutError:
        limit = f"The limit is {limits.body_timeout_s:g} s for the whole body."
        raise RequestTimeout(limit) from None
    if unpack is not None:
        packed_bytes = len(body)
        body = await unpack(body, max_bytes)
        visit.hold_bytes(max(0, len(body) - packed_bytes))
    visit.has_come()
    return body


def length_of(declared: bytes) -> int:
    """The bytes that a `Content-Length` declares, zeros before them or not; of more than 20 digits
    the first ones alone, which are beyond any limit. 0 of what is no number."""
    return int(declared.lstrip(b"0")[:20] or b"0") if declared.isdigit() else 0


async def _received(receive: Receive, max_bytes: int, visit: Visit) -> bytes:
    chunks: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerLeft
        chunk = message.get("body", b"")
        if visit.body_bytes + len(chunk) > max_bytes:
            raise too_many_bytes(max_bytes)
        visit.hold_bytes(len(chunk))
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
