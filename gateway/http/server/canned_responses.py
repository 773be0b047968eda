"""Canned HTTP/1.1 responses to requests that never reach the application.

The servers in front answer with them where they can't read a request, or have nobody to hand it
to. They know neither the request's path nor an id for it, so both are empty in these documents.
Must not import ray or mlflow.
"""

from __future__ import annotations

from http import HTTPStatus

import orjson

from gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    GatewayUnavailable,
    HeadTooLarge,
    InternalError,
    MalformedRequest,
    RequestTimeout,
)
from gateway.http.problems import MEDIA_TYPE, problem_document

_RETRY_AFTER_S = 1


def malformed_request() -> bytes:
    """The refusal of bytes that are no request."""
    return _response(MalformedRequest("What came could not be read as an HTTP request."))


def head_too_large() -> bytes:
    """The refusal of a head of more bytes than are kept for one."""
    return _response(HeadTooLarge("The limit is 16 KiB for the target and all header fields."))


def late_head() -> bytes:
    """The refusal of who began a head and didn't end it in time."""
    return _response(RequestTimeout("The request's head did not come in time."))


def no_more_connections() -> bytes:
    """The refusal of a connection beyond those that may be open at once."""
    return _response(GatewayUnavailable("Too many connections are open; try again."))


def nobody_there() -> bytes:
    """The refusal where no process of the gateway takes requests yet, or any more."""
    return _response(GatewayUnavailable("No process of the gateway answers; try again."))


def front_door_refusals() -> dict[int, bytes]:
    """What HAProxy is to answer in place of its own errors, by the status it has for them.

    502 and 503 both mean that trying again may help. Its 400 and 408 can't be replaced: HAProxy 2.8
    answers what it can't parse with its built-in page, whatever `errorfile` says.
    """
    gone = nobody_there()
    return {
        500: _response(InternalError("The gateway's front door failed on this request.")),
        502: gone,
        503: gone,
        504: _response(DeadlineExceeded("The gateway's process did not answer in time.")),
    }


def _response(error: GatewayError) -> bytes:
    body = orjson.dumps(problem_document(error, instance="", request_id=""))
    lines = [
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
        f"Content-Type: {MEDIA_TYPE}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-cache",
        "Connection: close",
    ]
    if isinstance(error, GatewayUnavailable):
        lines.append(f"Retry-After: {_RETRY_AFTER_S}")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body
