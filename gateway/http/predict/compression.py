"""Bodies that are compressed on their way: what comes is bounded by what it becomes, and answers
are compressed where the caller asks for it and it is worth it.

gzip and deflate are Python's own; brotli and zstd are those of PyArrow, where that is installed.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec

from gateway.errors import MalformedBody, PayloadTooLarge, UnsupportedMediaType
from gateway.http.predict.version_header import RawHeaders

WORTH_BYTES = 1024
"""Answers below this size are sent as they are."""

Unpack = Callable[[bytes, int], Awaitable[bytes]]

_GZIP, _RAW = 16 + zlib.MAX_WBITS, -zlib.MAX_WBITS
_PIECE = 1024 * 1024
_SAMPLE_BYTES = 8 * 1024
_WORTH_RATIO = 0.8
_SIDE_BY_SIDE = 2
# Each may make a thousandfold of what the one after it made: nobody means more than two.
_MOST_CODINGS = 2
_OF_ARROW = {"br": "brotli", "zstd": "zstd"}
_WEIGHT = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
# So few bodies are unpacked at once: until it is whole, nobody counts what one has become.
_threads = ThreadPoolExecutor(_SIDE_BY_SIDE, "compression")


def too_many_bytes(max_bytes: int) -> PayloadTooLarge:
    """The refusal of a body of more bytes than the limit."""
    return PayloadTooLarge(f"The limit is {max_bytes} bytes.")


def unpacker(codings_of_body: bytes) -> Unpack | None:
    """What undoes the value of a `Content-Encoding`, the last coding first, for up to so many bytes
    of each; None where there is nothing to undo.

    Raises UnsupportedMediaType for one that isn't known here, or for too many; what it returns
    raises MalformedBody and PayloadTooLarge.
    """
    named = [
        each.strip().lower().removeprefix("x-")
        for each in codings_of_body.decode("latin-1").split(",")
    ]
    applied = [name for name in named if name not in ("", "identity")]
    if not applied:
        return None
    if len(applied) > _MOST_CODINGS or not set(applied) <= set(codings()):
        known = ", ".join(codings())
        raise UnsupportedMediaType(
            f"Send the body as it is, or with a Content-Encoding of {known}; "
            f"at most {_MOST_CODINGS} of them.",
            accept_encoding=known,
        )

    async def unpack(body: bytes, max_bytes: int) -> bytes:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(_threads, _unpacked, applied, body, max_bytes)

    return unpack


@cache
def codings() -> tuple[str, ...]:
    """Those that are known here, the best first."""
    of_arrow = ("zstd", "br") if find_spec("pyarrow") is not None else ()
    return (*of_arrow, "gzip", "deflate")


async def packed(body: bytes, headers: RawHeaders) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """An answer as the request's `Accept-Encoding` wants it where that makes it smaller, and the
    headers that say so."""
    wanted = b", ".join(value for name, value in headers if name == b"accept-encoding")
    coding = _best(wanted.decode("latin-1").lower()) if wanted else None
    if coding is None:
        return body, []
    sample = body[:_SAMPLE_BYTES]
    if len(_packed(coding, sample)) > _WORTH_RATIO * len(sample):
        return body, []
    if len(body) > len(sample):
        smaller = await asyncio.to_thread(_packed, coding, body)
    else:
        smaller = _packed(coding, body)
    return smaller, [
        (b"content-encoding", coding.encode("ascii")),
        (b"vary", b"accept-encoding"),
    ]


def _best(wanted: str) -> str | None:
    """The best coding of those that a caller takes (RFC 9110, section 12.5.3); None is the body as
    it is, where that is preferred."""
    weights = {}
    for each in wanted.split(","):
        coding, _, parameter = (part.strip() for part in each.partition(";"))
        weight = _WEIGHT.fullmatch(parameter)
        name = coding.removeprefix("x-")
        weights[name] = float(weight[1]) if weight else 0.0 if parameter else 1.0
    found = {name: weights.get(name, weights.get("*", 0.0)) for name in codings()}
    best = max(found, key=lambda name: found[name])
    is_better = found[best] > 0 and found[best] >= weights.get("identity", 0.0)
    return best if is_better else None


def _packed(coding: str, body: bytes) -> bytes:
    """In the fastest way that each has: a caller waits."""
    if coding in _OF_ARROW:
        import pyarrow

        codec = pyarrow.Codec(_OF_ARROW[coding], compression_level=1)
        return bytes(codec.compress(body, asbytes=True))
    packing = zlib.compressobj(1, zlib.DEFLATED, _GZIP if coding == "gzip" else zlib.MAX_WBITS)
    return packing.compress(body) + packing.flush()


def _unpacked(applied: Sequence[str], body: bytes, max_bytes: int) -> bytes:
    for coding in reversed(applied):
        pieces = _pieces_of_arrow if coding in _OF_ARROW else _pieces
        body = _joined(pieces, coding, body, max_bytes)
    return body


def _joined(
    pieces: Callable[[str, bytes], Iterator[bytes]], coding: str, body: bytes, max_bytes: int
) -> bytes:
    found, size = [], 0
    for piece in pieces(coding, body):
        size += len(piece)
        if size > max_bytes:
            raise too_many_bytes(max_bytes)
        found.append(piece)
    return b"".join(found)


def _pieces(coding: str, body: bytes) -> Iterator[bytes]:
    try:
        while body:
            unpacking = zlib.decompressobj(_bits(coding, body))
            while not unpacking.eof:
                piece = unpacking.decompress(body, _PIECE)
                body = unpacking.unconsumed_tail
                if not piece and not body and not unpacking.eof:
                    raise _not_in(coding)  # it ends in the middle
                yield piece
            body = unpacking.unused_data  # gzip may go on (RFC 1952, section 2.2)
    except zlib.error:
        raise _not_in(coding) from None


def _bits(coding: str, body: bytes) -> int:
    """What zlib must know; many send deflate without the wrapping that RFC 9110 asks for."""
    if coding == "gzip":
        return _GZIP
    is_wrapped = body[0] & 0x0F == zlib.DEFLATED and int.from_bytes(body[:2], "big") % 31 == 0
    return zlib.MAX_WBITS if is_wrapped else _RAW


def _pieces_of_arrow(coding: str, body: bytes) -> Iterator[bytes]:
    import pyarrow

    try:
        with pyarrow.CompressedInputStream(pyarrow.BufferReader(body), _OF_ARROW[coding]) as stream:
            while piece := stream.read(_PIECE):
                yield piece
    except OSError:  # Arrow's word for whatever isn't in the coding
        raise _not_in(coding) from None


def _not_in(coding: str) -> MalformedBody:
    return MalformedBody(f"The body is not {coding}, as its Content-Encoding says, or not whole.")
