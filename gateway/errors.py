"""The one tree of errors that callers of the gateway can see.

    GatewayError
    ├── MalformedJson           400 malformed_json
    ├── MalformedBody           400 malformed_body
    ├── MalformedRequest        400 malformed_request
    ├── ConflictingVersion      400 conflicting_version
    ├── InvalidHeader           400 invalid_header
    ├── Unauthenticated         401 unauthenticated
    ├── Forbidden               403 forbidden
    ├── RouteNotFound           404 route_not_found
    ├── ModelNotFound           404 model_not_found
    ├── VersionNotFound         404 version_not_found
    ├── MethodNotAllowed        405 method_not_allowed
    ├── NotAcceptable           406 not_acceptable
    ├── RequestTimeout          408 request_timeout
    ├── SignatureMismatch       409 signature_mismatch
    ├── ModelUnservable         409 model_unservable
    ├── PayloadTooLarge         413 payload_too_large
    ├── UnsupportedMediaType    415 unsupported_media_type
    ├── InvalidInput            422 invalid_input
    ├── InvalidQuery            422 invalid_query
    ├── Overloaded              429 overloaded
    ├── RateLimited             429 rate_limited
    ├── HeadTooLarge            431 head_too_large
    ├── InternalError           500 internal_error
    │   ├── ModelFailed         500 model_failed
    │   └── InvalidModelOutput  500 invalid_model_output
    ├── ModelUnavailable        503 model_unavailable
    ├── CatalogUnavailable      503 catalog_unavailable
    ├── GatewayUnavailable      503 gateway_unavailable
    └── DeadlineExceeded        504 deadline_exceeded

Status, code and title belong to the class; what happened this time belongs to the instance. A
4xx is raised only where the caller can mend it. `gateway.http.problems` is the one place that
turns one of these into a response (RFC 9457), so an error never carries a caller's values, a stack
trace or the text of a foreign exception: those go to the log where they are caught.

This module owns the tree and nothing else. It imports nothing of the project.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

# RFC 6750, section 3.
_CHALLENGE = 'Bearer realm="modelmux"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One reason why a request doesn't fit the contract.

    `pointer` is an RFC 6901 JSON pointer into the request body (`""` is the whole body);
    `message` says what is expected there and never repeats the value that was sent.
    """

    pointer: str
    message: str


class GatewayError(Exception):
    """Base of all errors that callers see; `detail` is one sentence meant for them."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "The gateway failed"

    challenge: str | None = None

    by_model: bool = False
    """Whether it is the asked version's own doing: no caller's, and not the gateway's."""

    def __init__(
        self,
        detail: str,
        *,
        model: str | None = None,
        version: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.model = model
        self.version = version
        self.retry_after_s = retry_after_s

    def members(self) -> Mapping[str, Any]:
        """The extension members (RFC 9457, section 3.2) of this error beside the common ones."""
        return {}


class MalformedJson(GatewayError):
    """The body is no JSON text (RFC 8259), or nested deeper than any model could mean."""

    status = 400
    code = "malformed_json"
    title = "The body is not valid JSON"


class MalformedBody(GatewayError):
    """The body is not what its `Content-Type` or `Content-Encoding` says."""

    status = 400
    code = "malformed_body"
    title = "The body is not what its headers say"


class MalformedRequest(GatewayError):
    """What came is no HTTP request, or one that two servers could read differently (RFC 9112)."""

    status = 400
    code = "malformed_request"
    title = "The request is not valid HTTP"


class ConflictingVersion(GatewayError):
    """Two headers that mean the same ask for different versions."""

    status = 400
    code = "conflicting_version"
    title = "Two headers ask for different versions"


class InvalidHeader(GatewayError):
    """A header that the gateway reads has a value that means nothing."""

    status = 400
    code = "invalid_header"
    title = "A header's value is not valid"


class Unauthenticated(GatewayError):
    """The request has no key, or (`presented`) one that is not known.

    `challenge` is the value of the `WWW-Authenticate` header (RFC 9110, section 11.6.1).
    """

    status = 401
    code = "unauthenticated"
    title = "A key is needed"

    challenge: str | None = _CHALLENGE

    def __init__(self, detail: str, *, presented: bool = False) -> None:
        super().__init__(detail)
        if presented:
            self.challenge = f'{_CHALLENGE}, error="invalid_token"'


class Forbidden(GatewayError):
    """The request may not do this: its key lacks the scope `scope`, or no key would help (None)."""

    status = 403
    code = "forbidden"
    title = "This is not allowed"

    def __init__(self, detail: str, *, scope: str | None = None) -> None:
        super().__init__(detail)
        if scope is not None:
            self.challenge = f'{_CHALLENGE}, error="insufficient_scope", scope="{scope}"'


class RouteNotFound(GatewayError):
    """The gateway has no such path at all."""

    status = 404
    code = "route_not_found"
    title = "There is no such path"


class ModelNotFound(GatewayError):
    """The registry has no such model, or it is not served."""

    status = 404
    code = "model_not_found"
    title = "There is no such model"


class VersionNotFound(GatewayError):
    """The model has no such version or alias."""

    status = 404
    code = "version_not_found"
    title = "The model has no such version or alias"


class MethodNotAllowed(GatewayError):
    """The path exists, the method does not; `allow` is the value of the `Allow` header."""

    status = 405
    code = "method_not_allowed"
    title = "The method is not allowed here"

    def __init__(self, detail: str, *, allow: str) -> None:
        super().__init__(detail)
        self.allow = allow


class NotAcceptable(GatewayError):
    """The answer has no form in which the caller would take it (`Accept`)."""

    status = 406
    code = "not_acceptable"
    title = "The answer has no such form"


class RequestTimeout(GatewayError):
    """The request did not arrive whole in the time that it may take."""

    status = 408
    code = "request_timeout"
    title = "The request did not arrive in time"


class SignatureMismatch(GatewayError):
    """The version asked for would break the contract of the model's default version."""

    status = 409
    code = "signature_mismatch"
    title = "The version does not keep the model's contract"

    def __init__(
        self,
        detail: str,
        *,
        model: str,
        requested_version: int,
        default_version: int,
        differences: tuple[Mapping[str, Any], ...],
    ) -> None:
        super().__init__(detail, model=model)
        self.requested_version = requested_version
        self.default_version = default_version
        self.differences = differences

    def members(self) -> Mapping[str, Any]:
        """The two versions and what tells them apart, one entry per difference."""
        return {
            "requested_version": self.requested_version,
            "default_version": self.default_version,
            "differences": list(self.differences),
        }


class ModelUnservable(GatewayError):
    """The model or version is registered, but cannot be served as it was logged."""

    status = 409
    code = "model_unservable"
    title = "The model cannot be served as it is registered"


class PayloadTooLarge(GatewayError):
    """The body is larger than the gateway's limit, in bytes or in rows."""

    status = 413
    code = "payload_too_large"
    title = "The body is too large"


def too_many_rows(limit: int) -> PayloadTooLarge:
    """The refusal of a request of more rows than the limit."""
    return PayloadTooLarge(f"The limit is {limit} rows.")


class UnsupportedMediaType(GatewayError):
    """The body is declared as nothing that the route takes; `accept` and `accept_encoding` are the
    values of the headers that say what it does take (RFC 9110, section 15.5.16)."""

    status = 415
    code = "unsupported_media_type"
    title = "The body is of a type that is not taken here"

    accept: str | None = None
    accept_encoding: str | None = None

    def __init__(
        self, detail: str, *, accept: str | None = None, accept_encoding: str | None = None
    ) -> None:
        super().__init__(detail)
        self.accept = accept
        self.accept_encoding = accept_encoding


class InvalidInput(GatewayError):
    """The body is JSON, but does not fit the model's contract.

    Carries at most `MAX_VIOLATIONS` violations; `detail` says how many there were.
    """

    MAX_VIOLATIONS: ClassVar[int] = 50

    status = 422
    code = "invalid_input"
    title = "The request does not fit the model's signature"

    def __init__(self, violations: tuple[Violation, ...], *, model: str | None = None) -> None:
        count = len(violations)
        noun = "place" if count == 1 else "places"
        super().__init__(
            f"The request does not fit the model's signature in {count} {noun}.", model=model
        )
        self.violations = violations[: self.MAX_VIOLATIONS]

    def members(self) -> Mapping[str, Any]:
        """`errors`: pointer and message of each violation."""
        return {"errors": [{"pointer": v.pointer, "message": v.message} for v in self.violations]}


class InvalidQuery(GatewayError):
    """A parameter of the path's query has a value that means nothing."""

    status = 422
    code = "invalid_query"
    title = "The query is not valid"


class Overloaded(GatewayError):
    """More is waiting than the gateway keeps; try again after `retry_after_s`."""

    status = 429
    code = "overloaded"
    title = "Too many requests are waiting"


class RateLimited(GatewayError):
    """The key has asked for more than it may in this time; try again after `retry_after_s`."""

    status = 429
    code = "rate_limited"
    title = "Too many requests with this key"


class HeadTooLarge(GatewayError):
    """The request's target and header fields are more bytes than are kept for them (RFC 6585)."""

    status = 431
    code = "head_too_large"
    title = "The request's head is too large"


class InternalError(GatewayError):
    """Something in the gateway failed that no caller can mend."""

    status = 500
    code = "internal_error"
    title = "The gateway failed"


class ModelFailed(InternalError):
    """The model's own code raised on this request."""

    status = 500
    code = "model_failed"
    title = "The model failed on this request"
    by_model = True


class InvalidModelOutput(InternalError):
    """The model answered something that its own signature does not allow."""

    status = 500
    code = "invalid_model_output"
    title = "The model's answer does not fit its signature"
    by_model = True


class ModelUnavailable(GatewayError):
    """The version cannot be loaded now, is not tried for a while, or is still starting; try again
    after `retry_after_s`.

    `load_failed` tells the first from the others; `by_model` that its load or its calls fail.
    """

    status = 503
    code = "model_unavailable"
    title = "The model is not available right now"

    def __init__(
        self,
        detail: str,
        *,
        model: str | None = None,
        version: int | None = None,
        retry_after_s: float | None = None,
        load_failed: bool = False,
        by_model: bool = False,
    ) -> None:
        super().__init__(detail, model=model, version=version, retry_after_s=retry_after_s)
        self.load_failed = load_failed
        self.by_model = by_model or load_failed


class CatalogUnavailable(GatewayError):
    """The gateway has not seen the registry yet and has no snapshot of it."""

    status = 503
    code = "catalog_unavailable"
    title = "The gateway does not know its models yet"

    registry_problem: str | None = None

    def members(self) -> Mapping[str, Any]:
        """`registry_problem`: why the registry could not be read, where that is known."""
        return {} if self.registry_problem is None else {"registry_problem": self.registry_problem}


class GatewayUnavailable(GatewayError):
    """No process of the gateway takes the request, or the one that had it went away."""

    status = 503
    code = "gateway_unavailable"
    title = "The gateway is not available right now"


class DeadlineExceeded(GatewayError):
    """The answer was not there when the request's deadline passed."""

    status = 504
    code = "deadline_exceeded"
    title = "The deadline passed before the answer was there"
    by_model = True


def _tree(cls: type[GatewayError]) -> Iterator[type[GatewayError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _tree(child)


def all_errors() -> tuple[type[GatewayError], ...]:
    """Every class of the tree that can be raised, ordered by status and code."""
    return tuple(
        sorted(set(_tree(GatewayError)) - {GatewayError}, key=lambda c: (c.status, c.code))
    )


def no_answer(timeout_s: float, missing: str = "No answer") -> DeadlineExceeded:
    """What is said where nothing came within a request's deadline."""
    return DeadlineExceeded(f"{missing} within the request's deadline of {timeout_s:g} s.")
