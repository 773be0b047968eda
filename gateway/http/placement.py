"""Where callers find the gateway: below which path, and at which address, by whose word.

A proxy in front may serve the gateway below a path of its own (`location /ml/`), which the gateway
is told by a setting, or by the proxy in each request. Only proxies that are named as trusted are
believed: anybody can send a header. Must not import ray or mlflow.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

PREFIX_PATTERN = r"(?:/[A-Za-z0-9._~!$&'()*+=:@%-]+)*"
"""Segments of a path (RFC 3986, section 3.3), none of them empty: `//host` would be an address."""

_PREFIX = re.compile(PREFIX_PATTERN)
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_SCHEMES = ("http", "https")

# Of longer lists, which callers may write themselves, nothing is kept.
_FEW_HOPS = 256
_FORWARDED_FOR = b"x-forwarded-for"
_KEY = "modelmux.prefix"
_PERMANENT = 308


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The path that the gateway is below (`root_path`), unless one of `proxies` says another.

    With `front_door_tells` the server in front, which is ours, appends who connected to it to
    `X-Forwarded-For`; without, whoever connected to this process is who asks.
    """

    root_path: str = ""
    proxies: tuple[Network, ...] = ()
    front_door_tells: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether the gateway is at the root, and nobody can say otherwise."""
        return not self.root_path and not self.proxies

    def prefix(self, scope: Scope) -> str:
        """The path that callers find the gateway below, for the request in `scope`."""
        told = self._told(scope, b"x-forwarded-prefix")
        if not told:
            return self.root_path
        # Each proxy of several puts its own behind (RFC 9110, section 5.3, for lists in headers).
        joined = "".join(part.strip().rstrip("/") for part in told.split(","))
        return joined if _PREFIX.fullmatch(joined) else self.root_path

    def server(self, scope: Scope) -> str:
        """The gateway's address as callers have it where that is told whole, else its path."""
        prefix = prefix_of(scope)
        scheme = self._told(scope, b"x-forwarded-proto").lower()
        host = self._told(scope, b"x-forwarded-host")
        if scheme in _SCHEMES and _HOST.fullmatch(host):
            return f"{scheme}://{host}{prefix}"
        return prefix or "/"

    def client(self, scope: Scope) -> str | None:
        """The address of who asks: the last one of `X-Forwarded-For` that is no trusted proxy's,
        behind these; None where that is no address."""
        told = ",".join(_values(scope, _FORWARDED_FOR))
        hops = told if self.front_door_tells else f"{told},{_connected(scope)}"
        client_of = _client_of if len(hops) <= _FEW_HOPS else _client_of.__wrapped__
        return client_of(hops, self.proxies)

    def _told(self, scope: Scope, header: bytes) -> str:
        """What a trusted proxy says; nothing where it says nothing, or isn't trusted."""
        if not self.proxies or not self._trusts(_peer(scope, told=self.front_door_tells)):
            return ""
        return ",".join(_values(scope, header)).strip()

    def _trusts(self, peer: str) -> bool:
        return _is_in(peer, self.proxies)


@lru_cache(maxsize=1024)  # asked for each line of the access log, of few who ask again and again
def _client_of(hops: str, proxies: tuple[Network, ...]) -> str | None:
    """The last of some addresses that is no proxy's; None where that is no address."""
    path = [each.strip() for each in hops.split(",")]
    while len(path) > 1 and path[-2] and _is_in(path[-1], proxies):
        path.pop()
    try:
        return str(_plain(path[-1]))
    except ValueError:
        return None


def _is_in(peer: str, networks: tuple[Network, ...]) -> bool:
    try:
        address = _plain(peer)
    except ValueError:
        return False  # a Unix socket's, or none
    return any(address in network for network in networks)


def _plain(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address of IPv4 as such, which a socket for both kinds gives as `::ffff:192.0.2.1`; raises
    ValueError."""
    address = ipaddress.ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def prefix_of(scope: Scope) -> str:
    """The path that callers find the application below: what proxies took away, and where Serve
    has mounted it."""
    mounted: str = scope.get("root_path", "")
    return f"{scope.get(_KEY, '')}{mounted.rstrip('/')}"


def relative_root(scope: Scope) -> str:
    """The application's root as a reference relative to the request's own address: right below any
    path, whether a proxy tells it or not."""
    path = _route_path(scope)
    slash_at_end = path != "/" and _raw_path(scope).endswith(b"/")
    return "../" * (path.count("/") - 1 + slash_at_end) or "./"


class Placed:
    """An application around another that is asked as if it were at the root, and by paths without a
    slash at their end.

    Requests whose path has the prefix still in it (a proxy that takes nothing away) lose it, where
    the prefix begins with none of the segments that are the application's `own`.
    """

    def __init__(self, app: ASGIApp, placement: Placement, own: Collection[str] = ()) -> None:
        self._app = app
        self._placement = placement
        self._own = own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or send a browser to where relative addresses are right."""
        if scope["type"] == "http":
            if not self._placement.is_plain:
                prefix = scope[_KEY] = self._placement.prefix(scope)
                if prefix and prefix.split("/")[1] not in self._own:
                    in_path = unquote(prefix)  # a scope's path isn't percent-encoded
                    if scope["path"] == in_path and scope["method"] in ("GET", "HEAD"):
                        await _redirect(_with_slash(scope, prefix), send)
                        return
                    scope["path"] = _without(in_path, scope["path"])
            if scope["path"].endswith("/") and _route_path(scope) != "/":
                scope["path"] = scope["path"][:-1] or "/"
        await self._app(scope, receive, send)


async def _redirect(where: str, send: Send) -> None:
    headers = [(b"location", where.encode("latin-1")), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": _PERMANENT, "headers": headers})
    await send({"type": "http.response.body"})


def _without(prefix: str, path: str) -> str:
    if path == prefix:
        return "/"
    return path[len(prefix) :] if path.startswith(f"{prefix}/") else path


def _with_slash(scope: Scope, prefix: str) -> str:
    query = scope.get("query_string", b"").decode("latin-1")
    return f"{prefix}/?{query}" if query else f"{prefix}/"


def _route_path(scope: Scope) -> str:
    """The path below where the application is mounted (ASGI's `root_path`)."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) or "/"


def _raw_path(scope: Scope) -> bytes:
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw


def _peer(scope: Scope, *, told: bool) -> str:
    """The address of who connected to the front door."""
    if told:
        return ",".join(_values(scope, _FORWARDED_FOR)).rpartition(",")[2].strip()
    return _connected(scope)


def _connected(scope: Scope) -> str:
    """The address of who connected to this process."""
    client = scope.get("client")
    return "" if client is None else str(client[0])


def _values(scope: Scope, header: bytes) -> Iterable[str]:
    return (value.decode("latin-1") for name, value in scope["headers"] if name == header)
