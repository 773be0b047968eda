"""Rate-limited log lines of what a model's process writes to its standard output and error.

Lines that are too long are cut, and so many at once are left out that no model fills a disk or
keeps its supervisor busy; how many were is said.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from deployments.logs import fields

_logger = logging.getLogger("modelmux.model_output")

LONGEST_LINE_BYTES = 4096
BURST_LINES = 500
LINES_PER_S = 50.0


class OutputLines:
    """Takes what a process writes, in pieces. `where` are the fields of its lines."""

    def __init__(
        self,
        name: str,
        where: dict[str, object],
        *,
        write: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._extra = fields(**where)
        self._write = write or self._log
        self._clock = clock
        self._rest = b""
        self._is_cut = False
        self._allowance = float(BURST_LINES)
        self._counted_at = clock()
        self._left_out = 0

    def feed(self, data: bytes) -> None:
        """Take what came next."""
        *lines, rest = (self._rest + data).split(b"\n")
        if self._is_cut and lines:  # its beginning was said, and the rest is left out
            self._is_cut = False
            del lines[0]
        self._say_all(lines)
        if len(rest) > LONGEST_LINE_BYTES:
            if not self._is_cut:
                self._say_all([rest])
            self._is_cut, rest = True, b""
        self._rest = rest

    def close(self) -> None:
        """Nothing more comes."""
        if not self._is_cut:
            self._say_all([self._rest])
        self._rest = b""
        self._tell_left_out()

    def _say_all(self, lines: list[bytes]) -> None:
        """Say lines until they are too many; the others of the same moment are only counted, since
        a model may print millions while calls of others wait for this process."""
        for place, line in enumerate(lines):
            if not line.strip():
                continue
            if not self._may_speak():
                self._left_out += len(lines) - place - lines[place:].count(b"")
                return
            self._allowance -= 1.0
            self._tell_left_out()
            text = line[:LONGEST_LINE_BYTES].rstrip(b"\r").decode("utf-8", "replace")
            self._write(f"{text} …" if len(line) > LONGEST_LINE_BYTES else text)

    def _may_speak(self) -> bool:
        now = self._clock()
        grown = self._allowance + (now - self._counted_at) * LINES_PER_S
        self._allowance, self._counted_at = min(float(BURST_LINES), grown), now
        # Once it was too much, nothing is written until it is a second's worth again.
        return self._allowance >= (LINES_PER_S if self._left_out else 1.0)

    def _tell_left_out(self) -> None:
        if self._left_out:
            left_out, self._left_out = self._left_out, 0
            self._write(f"({left_out} lines were left out)")

    def _log(self, text: str) -> None:
        _logger.info("%s: %s", self._name, text, extra=self._extra)
