"""Which requests are captured, and what HTTP knows of them: ids, the status, the time.

On the path of a request: a look at its model's options, and for those that are kept an object that
travels in its scope. What becomes of them is `gateway.capture`'s matter.
"""

from __future__ import annotations

import random
import time

from starlette.types import Scope

from gateway.capture.journal import CaptureJournal
from gateway.capture.kept import Kept
from gateway.catalog import Resolution
from gateway.errors import GatewayError, InternalError
from gateway.http.predict.disconnect import is_left
from gateway.http.request_identity import request_id_of
from gateway.metrics.counters import CALLER_LEFT

CORRELATION_HEADER = "X-Correlation-ID"

_HEADER = CORRELATION_HEADER.lower().encode()
_LONGEST_ID = 256
_KEY = "modelmux.kept"
_DRAWN = "modelmux.is_kept"
_OK = 200
_LEFT = "caller_left"


class Capturing:
    """Notes the requests of one protocol in a journal."""

    def __init__(self, journal: CaptureJournal, protocol: str) -> None:
        self._journal = journal
        self._protocol = protocol

    def begin(self, scope: Scope, resolution: Resolution, asked: str | None) -> Kept | None:
        """What is to be filled of this request, where it is one of those that are kept."""
        if not self.draws(scope, resolution):
            return None
        kept = scope[_KEY] = Kept(
            resolution=resolution,
            asked=asked,
            protocol=self._protocol,
            request_id=request_id_of(scope),
            correlation_id=_correlation_id(scope),
            at_s=time.time(),
        )
        return kept

    def draws(self, scope: Scope, resolution: Resolution) -> bool:
        """Whether this request is one of them: drawn once, whoever asks first."""
        percent = resolution.model.options.capture
        if not percent:
            return False
        is_drawn: bool | None = scope.get(_DRAWN)
        if is_drawn is None:
            is_drawn = random.random() * 100.0 < percent  # noqa: S311 - no secret
            scope[_DRAWN] = is_drawn
        return is_drawn

    def answered(self, scope: Scope, spent_s: float) -> None:
        """The request in `scope` has been answered with 200."""
        self._end(scope, _OK, None, spent_s)

    def failed(self, scope: Scope, error: BaseException, spent_s: float) -> None:
        """The same with an error, or its caller has left."""
        if isinstance(error, GatewayError):
            self._end(scope, error.status, error.code, spent_s)
        elif is_left(error):
            self.left(scope, spent_s)
        else:
            self._end(scope, InternalError.status, InternalError.code, spent_s)

    def left(self, scope: Scope, spent_s: float) -> None:
        """Its caller has left."""
        self._end(scope, CALLER_LEFT, _LEFT, spent_s)

    def _end(self, scope: Scope, status: int, error: str | None, spent_s: float) -> None:
        kept: Kept | None = scope.pop(_KEY, None)
        if kept is not None:
            kept.status, kept.error, kept.spent_ms = status, error, spent_s * 1e3
            self._journal.note(kept)


def _correlation_id(scope: Scope) -> str | None:
    """The caller's own, as it was sent; none where it is too long to be one."""
    for name, value in scope["headers"]:
        if name == _HEADER:
            return value.decode("utf-8", "replace") if 0 < len(value) <= _LONGEST_ID else None
    return None
