"""What a stream gave, kept until it has ended, for a shadow's to be compared with."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from gateway.catalog import ShadowTarget

MOST_EVENT_BYTES = 1024 * 1024
"""Of a stream that is compared; none of a longer one is kept."""


def may_stream(target: ShadowTarget) -> bool:
    """Whether the shadow is asked what was a stream: only where the tag says that it has no
    effects, and where it can answer so."""
    return target.terms.forced and target.version.streamable


class Heard:
    """The events of a stream on their way: of one that is too long none are kept."""

    def __init__(self, events: AsyncGenerator[bytes]) -> None:
        self._coming = events
        self._has_ended = False
        self.events: list[bytes] = []
        self.size_bytes = 0

    @property
    def is_whole(self) -> bool:
        """Whether the stream has ended well, and all of it is kept."""
        return self._has_ended and self.size_bytes <= MOST_EVENT_BYTES

    async def passed_on(self) -> AsyncGenerator[bytes]:
        """The same events."""
        async with aclosing(self._coming):
            async for event in self._coming:
                self.size_bytes += len(event)
                if self.size_bytes <= MOST_EVENT_BYTES:
                    self.events.append(event)
                else:
                    self.events.clear()
                yield event
        self._has_ended = True
