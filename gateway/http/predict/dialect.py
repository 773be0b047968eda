"""What tells the protocols of predictions apart: how one asks, what bodies it has, how it refuses.

Everything else (keys, limits, deadline, counts) is the endpoint's and the same for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from starlette.responses import Response
from starlette.types import Scope

from gateway.catalog import Resolution
from gateway.contract import Form
from gateway.errors import ConflictingVersion, GatewayError, UnsupportedMediaType
from gateway.http.predict.negotiation import JSON, form_of
from gateway.http.predict.version_header import VERSION_HEADER, RawHeaders, selector_of
from gateway.http.problems import problem_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The model that a request asks for, and the version where it says one."""

    name: str
    selector: str | None


class Dialect:
    """The base of all: the typed route's JSON and tables by the model's contract, and problem
    documents."""

    protocol: ClassVar[str] = "modelmux"
    """The value of the metrics' label."""
    streams: ClassVar[bool] = True
    """Whether a caller who takes events is answered with them."""
    deciding: ClassVar[frozenset[bytes]] = frozenset()
    """The headers, beside `Content-Type` and `Accept`, that a body of JSON is read by."""

    def asked(self, scope: Scope) -> Asked:
        """What the path and the headers name; raises ConflictingVersion where they differ. Of small
        predictions the path alone is looked at (`direct`)."""
        path = scope["path_params"]
        selector, in_path = selector_of(scope["headers"]), path.get("selector")
        if in_path is not None and selector not in (None, in_path):
            raise ConflictingVersion(f"The path and {VERSION_HEADER} name different versions.")
        return Asked(name=path["name"], selector=selector if in_path is None else in_path)

    def form(self, headers: RawHeaders, resolution: Resolution) -> Form:
        """How the body is read and the answer written, before either is there.

        Raises UnsupportedMediaType, NotAcceptable and InvalidHeader.
        """
        return form_of(headers)

    def problem(self, scope: Scope, error: GatewayError) -> Response:
        """The response of an error."""
        return problem_of(scope, error)


def require_json(headers: RawHeaders) -> None:
    """Raise UnsupportedMediaType for what isn't declared as JSON."""
    for name, value in headers:
        if name == b"content-type":
            if value != JSON and value.partition(b";")[0].strip().lower() != JSON:
                break
            return
    raise UnsupportedMediaType("Send the body as application/json.", accept=JSON.decode("ascii"))
