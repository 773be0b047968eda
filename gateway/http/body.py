"""Reading a request's body: its declared type and its size, before anything is parsed."""

from __future__ import annotations

from fastapi import Request

from gateway.errors import PayloadTooLarge, UnsupportedMediaType

_JSON = "application/json"


async def read_json_body(request: Request, *, max_bytes: int) -> bytes:
    """The whole body; raises UnsupportedMediaType, and PayloadTooLarge before it is all read."""
    declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if declared != _JSON:
        raise UnsupportedMediaType(f"Send the body as {_JSON}.")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise _too_large(max_bytes)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The limit is {max_bytes} bytes.")
