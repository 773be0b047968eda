"""Reading a request's body: its declared type and its size, before anything is parsed."""

from __future__ import annotations

from starlette.types import Receive

from gateway.errors import PayloadTooLarge, UnsupportedMediaType
from gateway.http.version_selection import RawHeaders

_JSON = b"application/json"


async def read_json_body(headers: RawHeaders, receive: Receive, *, max_bytes: int) -> bytes | None:
    """The whole body; None where the caller left before it was there.

    Raises UnsupportedMediaType, and PayloadTooLarge before all of it is read.
    """
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
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The limit is {max_bytes} bytes.")
