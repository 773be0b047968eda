"""Attempts of background work: what goes wrong in one is logged, and ends nothing around it.

For what nobody waits for: the round of a loop that must have a next one, work that is done for
many. Where a caller waits, errors are raised, and `gateway.http.boundary` answers.
"""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self


class Attempt:
    """A context manager: an exception that nobody inside has thought of is logged with its stack,
    under a message that says what failed, and goes no further. Cancellations do, whatever else is
    no `Exception`, and those of the classes that `passes` names."""

    def __init__(
        self,
        logger: logging.Logger,
        message: str,
        *arguments: object,
        level: int = logging.ERROR,
        passes: tuple[type[Exception], ...] = (),
    ) -> None:
        self._logger = logger
        self._message = message
        self._arguments = arguments
        self._level = level
        self._passes = passes
        self.has_failed = False
        """Whether that happened; to be asked afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self.has_failed = isinstance(error, Exception) and not isinstance(error, self._passes)
        if self.has_failed:
            self._logger.log(self._level, self._message, *self._arguments, exc_info=error)
        return self.has_failed
