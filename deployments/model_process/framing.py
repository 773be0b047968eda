"""Message framing on a stream: a fixed prefix, a header and a body of raw buffers.

The one framing of all that speak with a model's process. The prefix is two little-endian 64-bit
numbers, the lengths of header and body in bytes; both are padded to 16, so that what lies in the
body is aligned for NumPy.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

PREFIX = struct.Struct("<QQ")
_ALIGNED = 16
_PADDING = bytes(_ALIGNED)
_BLANKS = b" " * _ALIGNED

MOST_HEADER_BYTES = 4 * 1024**3
MOST_BODY_BYTES = 64 * 1024**3


class MalformedMessage(ValueError):
    """What came isn't a message of this protocol."""


class Message(NamedTuple):
    """A message that came whole: its header, and its body, which may be written to."""

    header: bytes
    body: bytearray


def packed(header: bytes, buffers: list[Any]) -> bytes:
    """The message as it travels. `buffers` are bytes-like and C-contiguous."""
    head_padding = -len(header) % _ALIGNED
    parts: list[Any] = [b"", header, _BLANKS[:head_padding]]
    size = 0
    for buffer in buffers:
        length = memoryview(buffer).nbytes
        padding = -length % _ALIGNED
        parts.append(buffer)
        if padding:
            parts.append(_PADDING[:padding])
        size += length + padding
    parts[0] = PREFIX.pack(len(header) + head_padding, size)
    return b"".join(parts)


def aligned(length: int) -> int:
    """How many bytes a buffer of that length takes in a body."""
    return length + -length % _ALIGNED


class Inbox:
    """Puts messages together from the pieces of a stream, in their order."""

    def __init__(self) -> None:
        self._pieces = bytearray()
        self._needed = PREFIX.size

    def feed(self, data: Any) -> None:
        """Take what came next."""
        self._pieces += data

    def next(self) -> Message | None:
        """The next whole message, None where more has to come. Raises MalformedMessage."""
        pieces = self._pieces
        if len(pieces) < self._needed:
            return None
        header_length, body_length = PREFIX.unpack_from(pieces)
        if header_length > MOST_HEADER_BYTES or body_length > MOST_BODY_BYTES:
            raise MalformedMessage("the lengths of a message are out of bounds")
        body_at = PREFIX.size + header_length
        end = body_at + body_length
        if len(pieces) < end:
            self._needed = end
            return None
        self._needed = PREFIX.size
        header = bytes(pieces[PREFIX.size : body_at])
        if len(pieces) == end:
            # Nearly always: what came is one message. It keeps the memory, without a copy of it
            # where it is large.
            self._pieces = bytearray()
            if not body_length:
                return Message(header, bytearray())
            del pieces[:body_at]
            return Message(header, pieces)
        body = pieces[body_at:end]
        del pieces[:end]
        return Message(header, body)
