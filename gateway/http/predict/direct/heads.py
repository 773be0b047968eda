"""What a request's head asks for, where a small prediction may be answered without a task.

Only a head that says nothing odd is taken: all that decides how a request is read or answered is
the ordinary way's matter. Must not import ray or mlflow.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import NamedTuple
from urllib.parse import unquote

from gateway.catalog import Catalog, Resolution
from gateway.contract import Form
from gateway.errors import GatewayError
from gateway.http.predict.body import length_of
from gateway.http.predict.endpoint import PredictEndpoint
from gateway.http.predict.negotiation import JSON
from gateway.http.predict.routes import PredictionRoutes
from gateway.http.predict.version_header import SELECTING
from gateway.prediction import PredictionService
from gateway.small_predictions import MOST_BYTES, SmallPredictions

_REMEMBERED = 4096
_REMEMBERED_HEADS = 1024
_END_OF_HEAD = b"\r\n\r\n"
_LONGEST_HEAD = 2048
_ANYTHING = (b"*/*", JSON)

# What they say decides how a request is read or answered: the ordinary way knows how.
_DECIDING = SELECTING | {
    b"content-encoding",
    b"expect",
    b"origin",
    b"transfer-encoding",
    b"upgrade",
    b"x-request-timeout",
}


class Taken(NamedTuple):
    """What a request asks for that is taken, by which path, whom and in which form (in which other
    one where it goes to a canary), and by which version or alias; which headers it may not have,
    and how long its body may be."""

    path: str
    endpoint: PredictEndpoint
    resolution: Resolution
    form: Form
    canary_form: Form
    selector: str | None
    deciding: Set[bytes]
    most_bytes: int


class KnownHead(NamedTuple):
    """A request's head that has come before."""

    target: bytes
    headers: Sequence[tuple[bytes, bytes]]
    length: int
    taken: Taken


class DirectHeads:
    """Knows what the heads of requests ask of those `routes` whose paths name the model. What is
    found is kept for as long as the catalog is the same."""

    def __init__(
        self, service: PredictionService, small: SmallPredictions, routes: PredictionRoutes
    ) -> None:
        self._service = service
        self._small = small
        self._routes = routes
        self._resolved_in: Catalog | None = None
        self._resolved: dict[bytes, Taken] = {}
        self._heads: dict[bytes, KnownHead] = {}

    def asked(self, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Taken | None:
        """What a POST to that target with those headers asks for; None where it isn't taken."""
        taken = self._taken(target)
        if taken is None:
            return None
        is_json, length = False, b""
        for name, value in headers:
            if name in taken.deciding:
                return None
            if name == b"content-type":
                if value != JSON:
                    return None
                is_json = True
            elif name == b"content-length":
                length = value
            elif name == b"accept" and value not in _ANYTHING:
                return None
        is_small = length.isdigit() and length_of(length) <= taken.most_bytes
        return taken if is_json and is_small else None

    def known(self, data: bytes) -> KnownHead | None:
        """What `data` asks for, where it is a whole request with a head that was remembered: a
        client's next request mostly has the same one, byte by byte."""
        if self._service.current is not self._resolved_in:
            return None
        end = data.find(_END_OF_HEAD, 0, _LONGEST_HEAD) + len(_END_OF_HEAD)
        head = self._heads.get(data[:end])
        return head if head is not None and len(data) == end + head.length else None

    def remember(
        self,
        data: bytes,
        target: bytes,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes,
        taken: Taken,
    ) -> None:
        """Know the head of a request that was `asked` for and came as `data`, for as long as the
        catalog is the same."""
        end = data.find(_END_OF_HEAD, 0, _LONGEST_HEAD) + len(_END_OF_HEAD)
        if data[end:] != body or end < len(_END_OF_HEAD):
            return
        if len(self._heads) >= _REMEMBERED_HEADS:
            self._heads.clear()
        self._heads[data[:end]] = KnownHead(target, headers, len(body), taken)

    def _taken(self, target: bytes) -> Taken | None:
        """By a target that is nothing but a path. What is found is kept for as long as the catalog
        is the same."""
        catalog = self._service.current
        if catalog is not self._resolved_in:
            self._resolved_in, self._resolved, self._heads = catalog, {}, {}
        found = self._resolved.get(target)
        return self._taken_anew(target) if found is None else found

    def _taken_anew(self, target: bytes) -> Taken | None:
        if not target.isascii() or b"?" in target or b"#" in target:
            return None
        path = unquote(target.decode("ascii"))
        endpoint, said = self._routes.found(path) or (None, {})
        if not isinstance(endpoint, PredictEndpoint) or not self._service.knows(said["name"]):
            return None
        try:
            resolution = self._service.resolve(said["name"], said.get("selector"))
        except GatewayError:
            return None
        if not self._small.takes(resolution):
            return None
        if len(self._resolved) >= _REMEMBERED:
            self._resolved.clear()
        form, canary = endpoint.form_of_json(resolution), resolution.canary
        taken = self._resolved[target] = Taken(
            path=path,
            endpoint=endpoint,
            resolution=resolution,
            form=form,
            canary_form=form if canary is None else endpoint.form_of_json(canary.resolution),
            selector=said.get("selector"),
            deciding=_DECIDING | endpoint.deciding,
            most_bytes=min(MOST_BYTES, endpoint.max_body_bytes),
        )
        return taken
