"""A pseudo-terminal that a process is run in, and what it showed."""

from __future__ import annotations

import os
import pty
import threading
from types import TracebackType
from typing import Self


class Terminal:
    """Shows all that is written to `line`, the descriptor for a process to have as its streams."""

    def __init__(self) -> None:
        self._master, self.line = pty.openpty()
        self._shown = b""
        self._reading = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._reading.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        stack: TracebackType | None,
    ) -> None:
        self._close()
        os.close(self._master)

    @property
    def shown(self) -> str:
        """Everything that was written, once whoever wrote has ended."""
        self._close()
        return self._shown.decode(errors="replace")

    @property
    def shown_so_far(self) -> str:
        """What was written up to now."""
        return self._shown.decode(errors="replace")

    def _close(self) -> None:
        if self._reading.is_alive() and self.line >= 0:
            os.close(self.line)
            self.line = -1
        self._reading.join(10)

    def _read(self) -> None:
        try:
            while piece := os.read(self._master, 65536):
                self._shown += piece
        except OSError:  # Linux: nobody has the other side any more
            return
