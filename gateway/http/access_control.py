"""Authentication by API key: who sent a request, and which paths need no key.

`AccessControl` refuses by default: what isn't named as open needs a key that is known. What a key
may do is asked where it is done, with the name that is used there, so that no two readings of a
path can disagree (`gateway.security.api_keys.Key`). Where keys are off nothing of this is in the
way. Must not import ray or mlflow."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Protocol

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.catalog import Catalog
from gateway.errors import RateLimited, Unauthenticated
from gateway.http.access_log import note_key
from gateway.http.problems import problem_of
from gateway.security.api_keys import Key, Keyring
from gateway.security.key_usage import KeyUsage

WEBHOOK_PATH = "/webhooks/mlflow"
METRICS_PATH = "/metrics"

_KEY = "modelmux.key"
_REFUSED = "modelmux.refused"

# The webhook has a check of its own; without a key the pages and their files say nothing about any
# model (`gateway.http.pages.routes` asks for it).
_ALWAYS_OPEN = re.compile(
    rf"/healthz|/readyz|/v2/health/(?:live|ready)|{WEBHOOK_PATH}|/docs|/docs/assets/.*|/|/catalog/[^/]+"
)
_OPEN_BY_SETTING = {
    "docs": re.compile(r"/openapi\.json|/models/[^/]+/openapi\.json"),
    "metrics": re.compile(METRICS_PATH),
}


class KeyringSource(Protocol):
    """Where the keys of this moment come from."""

    @property
    def keyring(self) -> Keyring:
        """The keys that are good now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Keys are on: where they come from, what (`docs`, `metrics`) needs none, and what is asked
    with each."""

    keys: KeyringSource
    public: frozenset[str] = frozenset()
    usage: KeyUsage = field(default_factory=KeyUsage)

    def is_open(self, path: str) -> bool:
        """Whether that path needs no key."""
        by_setting = (_OPEN_BY_SETTING[name] for name in self.public)
        return any(pattern.fullmatch(path) for pattern in (_ALWAYS_OPEN, *by_setting))

    def identify(self, scope: Scope) -> Key:
        """The key that came with a request, kept in its scope; raises Unauthenticated, and
        RateLimited where it has asked for too much."""
        known: Key | None = scope.get(_KEY)
        if known is None:
            if _REFUSED in scope:
                raise scope[_REFUSED]
            found = self.keys.keyring.key_of(_secret_in(scope))
            note_key(scope, found.name)
            try:
                self.usage.note(found)
            except RateLimited as error:  # once: it is counted
                scope[_REFUSED] = error
                raise
            known = scope[_KEY] = found
        return known


class AccessControl:
    """Lets pass what has a key or needs none; answers the rest with 401."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its key in the scope."""
        if scope["type"] == "http" and not self._access.is_open(_path_in(scope)):
            try:
                self._access.identify(scope)
            except (Unauthenticated, RateLimited) as error:
                await problem_of(scope, error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def require_sight(request: Request, model: str) -> None:
    """Raise Forbidden where the request's key may not know of a model of that name."""
    key = _key_in(request)
    if key is not None:
        key.require_sight(model)


def may_read_data(request: Request) -> bool:
    """Whether the request's key may read what callers have sent: where keys are on, one that may
    read about every model."""
    key = _key_in(request)
    return key is None or key.sees_all


def has_key(request: Request) -> bool:
    """Whether the request came with a key that is known."""
    return _key_in(request) is not None


async def require_sight_of_all(request: Request) -> None:
    """Raise Forbidden where the request's key may not read about every model."""
    key = _key_in(request)
    if key is not None:
        key.require_sight_of_all()


async def require_admin(request: Request) -> None:
    """Raise Forbidden where the request's key may not steer the gateway."""
    key = _key_in(request)
    if key is not None:
        key.require_admin()


def visible_part(request: Request, catalog: Catalog) -> Catalog:
    """The models that the request's key may know of; the catalog itself where it is all of them."""
    key = _key_in(request)
    return catalog if key is None or key.sees_all else catalog.only(key.may_see)


def _key_in(request: Request) -> Key | None:
    """The key that `AccessControl` saw; None where keys are off or the path is open."""
    key: Key | None = request.scope.get(_KEY)
    return key


def _path_in(scope: Scope) -> str:
    """The path below where the application is mounted."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _secret_in(scope: Scope) -> bytes:
    """What comes as `Authorization: Bearer` (RFC 6750, section 2.1), and only once."""
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, secret = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
    if scheme.lower() != b"bearer":
        raise Unauthenticated("Send a key in the header: Authorization: Bearer KEY.")
    return bytes(secret.strip())
