"""The error boundary around each HTTP request: its id, its line in the log, and its last word.

Whatever is raised inside, by a route, a middleware or the rendering of an answer, leaves as a
problem document. What can't: an answer that has begun is broken off, and a caller who left gets
nothing. A plain ASGI middleware, because it runs on the hot path. Must not import ray or mlflow.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import GatewayUnavailable
from gateway.http.access_log import AccessEntry, AccessJournal
from gateway.http.predict.disconnect import CallerLeft, is_left
from gateway.http.problems import problem_of_any
from gateway.http.request_identity import REQUEST_ID_HEADER, request_id_of

_logger = logging.getLogger(__name__)

BEGAN = "modelmux.began"
"""In the scope of a request that came some time ago: when, of `time.perf_counter`."""

_REQUEST_ID = REQUEST_ID_HEADER.lower().encode()
_RETRY_AFTER_S = 1.0


class Boundary:
    """An application around another that answers each HTTP request, whatever happens inside.

    With `answers_request_id=False` the id is left to a server in front that answers with it anyway
    (Ray Serve does); a header that came twice would be two answers to one question. Requests are
    noted in `journal` when they are done, those of callers who left without a status.
    """

    def __init__(
        self, app: ASGIApp, *, journal: AccessJournal | None = None, answers_request_id: bool = True
    ) -> None:
        self._app = app
        self._journal = journal
        self._answers_request_id = answers_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the application answer; raises only where nothing can be said any more."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = scope.get(BEGAN) or time.perf_counter()
        status = None

        async def noting(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._answers_request_id:
                    request_id = request_id_of(scope).encode("ascii")
                    message["headers"] = [*message.get("headers", ()), (_REQUEST_ID, request_id)]
            await send(message)

        try:
            await self._app(scope, receive, noting)
            if status is None and not await _has_left(receive):
                await _conclude(_Unanswered(), scope, receive, noting)
        except CallerLeft:
            pass  # nobody is there to be told
        except GeneratorExit:
            raise  # this coroutine is being closed: nothing can be awaited in it
        # The boundary: no exception of any kind may become an answer of the server's own.
        except BaseException as error:
            if status is not None:
                _note_broken_off(scope, error)
                raise
            await _conclude(error, scope, receive, noting)
        finally:
            if self._journal is not None:
                spent_s = time.perf_counter() - started
                self._journal.add(AccessEntry(time.time(), scope, status, spent_s))


class _Unanswered(Exception):
    """The application has returned, and answered nothing."""


async def _conclude(error: BaseException, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer what has ended with an error before an answer had begun."""
    if is_left(error):
        if not await _has_left(receive):
            ending = GatewayUnavailable(
                "The gateway's process is ending; try again.", retry_after_s=_RETRY_AFTER_S
            )
            await problem_of_any(scope, ending)(scope, receive, send)
        raise error
    await problem_of_any(scope, error)(scope, receive, send)
    if isinstance(error, KeyboardInterrupt):
        raise error  # of a person at the terminal, and no fault of the request


async def _has_left(receive: Receive) -> bool:
    """Whether the connection's end is there to be received."""
    try:
        async with asyncio.timeout(0):
            while (await receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return False
    return True


def _note_broken_off(scope: Scope, error: BaseException) -> None:
    if not is_left(error):
        _logger.error("the answer to request %s broke off", request_id_of(scope), exc_info=error)
