"""The one place where an error becomes a response: RFC 9457 problem details.

Owns the envelope and the exception handlers. A response never holds a stack trace, a caller's
value or the text of a foreign exception; what nobody expected is logged here under its request id
and answered as `internal_error`.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

from gateway.errors import (
    GatewayError,
    InternalError,
    InvalidInput,
    InvalidQuery,
    MethodNotAllowed,
    ModelNotFound,
    RequestTimeout,
    RouteNotFound,
    UnsupportedMediaType,
)
from gateway.http.access_log import note_answer
from gateway.http.request_identity import request_id_of

_logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

_SAID_PLACES = 3
# As `mlflow.exceptions` maps them to statuses, where it does.
_MLFLOW_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    405: "BAD_REQUEST",
    406: "BAD_REQUEST",
    408: "DEADLINE_EXCEEDED",
    409: "INVALID_STATE",
    413: "BAD_REQUEST",
    415: "BAD_REQUEST",
    422: "INVALID_PARAMETER_VALUE",
    429: "REQUEST_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_SEE_LOG = "The gateway failed on this request; see its log."


def problem_type(code: str) -> str:
    """The problem's `type` (RFC 9457, section 3.1.1): a stable URI that names the code."""
    return f"urn:modelmux:problem:{code}"


def problem_document(
    error: GatewayError, *, instance: str, request_id: str, status: int | None = None
) -> dict[str, Any]:
    """The problem details object of an error, for the request `request_id` to path `instance`.

    `status` is the error's own where a protocol has no other. What other protocols' clients read is
    in it, too: `error` (Open Inference Protocol), `error_code` and `message` (MLflow).
    """
    status = error.status if status is None else status
    said = _said(error)
    document: dict[str, Any] = {
        "type": problem_type(error.code),
        "title": error.title,
        "status": status,
        "detail": error.detail,
        "instance": instance,
        "code": error.code,
        "request_id": request_id,
        "error": said,
        "error_code": _MLFLOW_CODES.get(status, "INTERNAL_ERROR"),
        "message": said,
    }
    if error.model is not None:
        document["model"] = error.model
    if error.version is not None:
        document["version"] = error.version
    return {**document, **error.members()}


def _said(error: GatewayError) -> str:
    """All that a client shows which reads one text: the detail, and the first places of it."""
    if not isinstance(error, InvalidInput):
        return error.detail
    places = [f"{v.pointer or '/'}: {v.message}" for v in error.violations[:_SAID_PLACES]]
    return " ".join((error.detail, *places))


def problem_response(
    error: GatewayError, *, instance: str, request_id: str, status: int | None = None
) -> Response:
    """The response of an error: its envelope, and the headers that go with it."""
    status = error.status if status is None else status
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if error.version is not None:
        headers["X-Model-Version"] = str(error.version)
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = error.allow
    if isinstance(error, UnsupportedMediaType):
        taken = {"Accept": error.accept, "Accept-Encoding": error.accept_encoding}
        headers.update({name: value for name, value in taken.items() if value is not None})
    if isinstance(error, RequestTimeout):
        headers["Connection"] = "close"  # the rest of the body may never come
    if error.challenge is not None:
        headers["WWW-Authenticate"] = error.challenge
    document = problem_document(error, instance=instance, request_id=request_id, status=status)
    # A JSON key or path may hold what UTF-8 can't say (a lone surrogate): never fail on that.
    content = orjson.dumps(encodable(document))
    return Response(content, status, headers, media_type=MEDIA_TYPE)


def problem_of(scope: Scope, error: GatewayError, *, status: int | None = None) -> Response:
    """The response of an error to the request in `scope`, with its own status or another."""
    if error.model is not None:  # else what is noted already says more
        note_answer(scope, error.model, error.version, None)
    return problem_response(
        error,
        # Percent-encoded as it was sent: a URI reference, whatever bytes a name was made of.
        instance=scope.get("raw_path", b"").decode("ascii", "replace"),
        request_id=request_id_of(scope),
        status=status,
    )


def problem_of_any(scope: Scope, error: BaseException) -> Response:
    """The response of whatever was raised on the request in `scope`; never fails itself.

    What isn't a GatewayError nobody knows about but the log.
    """
    try:
        if isinstance(error, GatewayError):
            return problem_of(scope, error)
        _logger.error("request %s failed", request_id_of(scope), exc_info=error)
        return problem_of(scope, InternalError(_SEE_LOG))
    # A boundary: an error whose own words can't be put into JSON, no memory for them, and the like.
    except Exception:
        _logger.exception("the problem of a request could not be told")
        return Response(_UNTOLD, InternalError.status, media_type=MEDIA_TYPE)


def install_handlers(app: FastAPI) -> None:
    """Make the errors that routes of `app` raise problem responses, and the framework's own words
    too. What nobody expected is for the `Boundary` around the routes."""
    app.add_exception_handler(GatewayError, _on_gateway_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_query)


async def _on_gateway_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    return problem_of(request.scope, error)


async def _on_invalid_query(request: Request, error: Exception) -> Response:
    """FastAPI reads nothing but queries for us: bodies have contracts."""
    assert isinstance(error, RequestValidationError)
    refused = (f"{each['loc'][-1]}: {each['msg']}." for each in error.errors())
    return problem_of(request.scope, InvalidQuery(" ".join(refused)))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == MethodNotAllowed.status:
        allow = _methods_at(request)
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": allow})
        return problem_of(request.scope, MethodNotAllowed(f"Allowed here: {allow}.", allow=allow))
    if error.status_code == ModelNotFound.status:
        return problem_of(request.scope, RouteNotFound("See /docs for what there is."))
    _logger.error("unexpected HTTP exception %s", error.status_code, exc_info=error)
    return problem_of(request.scope, InternalError("The gateway failed on this request."))


def _methods_at(request: Request) -> str:
    """What the path can be asked (RFC 9110, section 10.2.1): an exception names the methods of one
    route, and a path may have several. The pages' files are no route's."""
    routes = request.app.router.routes

    def is_answered(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in routes)

    methods = list(filter(is_answered, _METHODS))
    return ", ".join([*(methods or _OF_FILES), "OPTIONS"])


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_OF_FILES = ("GET", "HEAD")

_UNTOLD = orjson.dumps(problem_document(InternalError(_SEE_LOG), instance="", request_id=""))


def encodable(value: Any) -> Any:
    """The same without what UTF-8 can't say."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {encodable(key): encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encodable(item) for item in value]
    return value
