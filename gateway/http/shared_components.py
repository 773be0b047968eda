"""What all operations of the OpenAPI document share: problem responses, headers, parameters, and
how a key is given."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from gateway.errors import (
    GatewayError,
    HeadTooLarge,
    MethodNotAllowed,
    Unauthenticated,
    all_errors,
)
from gateway.http.predict.deadline_header import TIMEOUT_HEADER, TIMEOUT_PATTERN
from gateway.http.predict.version_header import VERSION_HEADER
from gateway.http.problems import MEDIA_TYPE, problem_document

PREDICT_ERRORS = (400, 404, 406, 408, 409, 413, 415, 422, 429, 500, 503, 504)
"""Statuses that a predict route can answer with: one table for all models."""

_KEY_ERRORS = (401, 403)
"""What it answers beside these, where keys are on."""

_OF_NO_OPERATION = {MethodNotAllowed.status, HeadTooLarge.status}
"""What is answered where no operation was asked."""

_SECURITY_SCHEME = "key"


def reference(kind: str, name: str) -> dict[str, str]:
    """A reference to a component: `schemas`, `responses`, `headers`, `parameters`."""
    return {"$ref": f"#/components/{kind}/{name}"}


def require_key(operation: dict[str, Any], which: str) -> None:
    """Describe that an operation needs a key; `which` is a sentence about that."""
    operation["description"] = "\n\n".join(filter(None, (operation.get("description"), which)))
    operation["security"] = [{_SECURITY_SCHEME: []}]
    refer_to_problems(operation, _KEY_ERRORS)


def refer_to_problems(operation: dict[str, Any], statuses: Iterable[int]) -> None:
    """Describe that an operation may answer with these errors."""
    told = {str(status): reference("responses", str(status)) for status in statuses}
    operation["responses"] = dict(sorted({**operation["responses"], **told}.items()))


@cache
def shared_components(*, needs_keys: bool) -> dict[str, Any]:
    """All of them but the schemas."""
    statuses = {error.status for error in all_errors()} - _OF_NO_OPERATION
    if not needs_keys:
        statuses.remove(Unauthenticated.status)
    components = {
        "responses": {str(status): _problem_response(status) for status in sorted(statuses)},
        "headers": {**RESPONSE_HEADERS, **_PROBLEM_HEADERS},
        "parameters": PARAMETERS,
    }
    return {**components, "securitySchemes": _SECURITY_SCHEMES} if needs_keys else components


def _problem_response(status: int) -> dict[str, Any]:
    errors = [error for error in all_errors() if error.status == status]
    response = {
        "description": " · ".join(f"`{error.code}`: {error.title}" for error in errors),
        "content": {
            MEDIA_TYPE: {
                "schema": reference("schemas", "Problem"),
                "examples": {error.code: {"value": _problem_example(error)} for error in errors},
            }
        },
    }
    header = _HEADER_OF_STATUS.get(status)
    if header is None:
        return response
    return {**response, "headers": {header: reference("headers", header)}}


def _problem_example(error: type[GatewayError]) -> dict[str, Any]:
    sample = GatewayError(error.title)
    document = problem_document(sample, instance="/models/name/predict", request_id="4f6c")
    return {
        **document,
        "type": document["type"].replace(sample.code, error.code),
        "title": error.title,
        "status": error.status,
        "code": error.code,
    }


RESPONSE_HEADERS: dict[str, Any] = {
    VERSION_HEADER: {
        "description": "The number of the version that answered.",
        "schema": {"type": "string"},
    },
    "X-Request-ID": {
        "description": "The caller's request id, or a new one.",
        "schema": {"type": "string"},
    },
    "Server-Timing": {
        "description": "Milliseconds per step (W3C Server Timing).",
        "schema": {"type": "string"},
    },
}

_RETRY_AFTER = "Retry-After"
_PROBLEM_HEADERS: dict[str, Any] = {
    _RETRY_AFTER: {
        "description": "Seconds after which trying again makes sense (RFC 9110, section 10.2.3).",
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {
        "description": "What is asked for, and what was wrong (RFC 6750, section 3).",
        "schema": {"type": "string"},
    },
}
_HEADER_OF_STATUS = {
    401: "WWW-Authenticate",
    403: "WWW-Authenticate",
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
}

# None has an example: a page to try requests on fills its fields with these, and a header that
# nobody meant to send lowers a deadline or asks for a version.
PARAMETERS: dict[str, Any] = {
    "RequestId": {
        "name": "X-Request-ID",
        "in": "header",
        "required": False,
        "description": "Comes back in the answer and in the log; made up where absent.",
        "schema": {"type": "string"},
    },
    "RequestTimeout": {
        "name": TIMEOUT_HEADER,
        "in": "header",
        "required": False,
        "description": (
            "Seconds until the request is answered with 504, as in 2.5; lowers the model's own "
            "deadline."
        ),
        "schema": {"type": "string", "pattern": TIMEOUT_PATTERN},
    },
}

_SECURITY_SCHEMES: dict[str, Any] = {
    _SECURITY_SCHEME: {
        "type": "http",
        "scheme": "bearer",
        "description": "A key of this gateway, made by `modelmux keys new`.",
    }
}
