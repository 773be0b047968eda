"""API keys and scopes: who may do what, and how both are written down (pure).

A key is a long random secret of which only the SHA-256 is kept. That is enough, and right, for
what was never chosen by a person: of 256 random bits nothing can be guessed, so a slow hash would
cost each request milliseconds and buy nothing. A key is found by the digest of what was sent, in a
dictionary. The time of that tells about digests alone, and nobody can steer the digest of a guess
towards one that is known here without having the secret: so nothing is compared byte by byte with
a secret, and there is nothing to measure.

Owns the rules and the format. Must not import anything of the project but errors.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import translate
from math import ceil
from urllib.parse import quote, unquote

from gateway.errors import Forbidden, Unauthenticated

_SECRET_PREFIX = "mmx_"  # noqa: S105  # by which scanners for leaked secrets can know one  # pragma: allowlist secret
_SECRET_BYTES = 32
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_RATE = re.compile(r"rate=([0-9]+(?:\.[0-9]+)?)(?:/([0-9]+))?")
_ENTRY_ENDS = re.compile(r"[;\n]")


class Scope(StrEnum):
    """What a key may do: `admin` may do what the other two may."""

    PREDICT = "predict"
    READ = "read"
    ADMIN = "admin"


class BadKeys(ValueError):
    """Keys that can't be read; the sentence names the line and never repeats what is in it."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests a second, and so many at once after a while without any."""

    per_s: float
    burst: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What is known about a key: its name, the SHA-256 of its secret (hex), what it may do.

    `models` are globs of the models that it may call, where its scope `predict` is for some only;
    `rate` is how much may be asked with it, where that is bounded.
    """

    name: str
    digest: str = field(repr=False)
    scopes: frozenset[Scope]
    models: tuple[str, ...] = ()
    rate: Rate | None = None
    _callable: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # One pattern, made once: this is asked on the way of every prediction.
        pattern = "|".join(translate(glob) for glob in self.models or ("*",))
        object.__setattr__(self, "_callable", re.compile(pattern))

    @property
    def is_admin(self) -> bool:
        """Whether the key may do everything."""
        return Scope.ADMIN in self.scopes

    @property
    def sees_all(self) -> bool:
        """Whether the key may know of every model."""
        return self.is_admin or Scope.READ in self.scopes

    def may_call(self, model: str) -> bool:
        """Whether the key may predict with a model of that name, be there one or not."""
        if Scope.PREDICT in self.scopes and self._callable.match(model) is not None:
            return True
        return self.is_admin

    def may_see(self, model: str) -> bool:
        """Whether the key may know of a model of that name: it may where it may call it."""
        return self.sees_all or self.may_call(model)

    def require_call(self, model: str) -> None:
        """Raise Forbidden where the key may not call a model of that name.

        By the name alone, before anybody looks for the model: the answer can't tell if it exists.
        """
        if not self.may_call(model):
            raise Forbidden("This key may not call a model of that name.", scope=Scope.PREDICT)

    def require_sight(self, model: str) -> None:
        """Raise Forbidden where the key may not know of a model of that name; see above."""
        if not self.may_see(model):
            raise Forbidden("This key may not read about a model of that name.", scope=Scope.READ)

    def require_sight_of_all(self) -> None:
        """Raise Forbidden where the key may not read about every model."""
        if not self.sees_all:
            raise Forbidden("This needs a key with the scope read.", scope=Scope.READ)

    def require_admin(self) -> None:
        """Raise Forbidden where the key may not steer the gateway."""
        if not self.is_admin:
            raise Forbidden("This needs a key with the scope admin.", scope=Scope.ADMIN)


class Keyring:
    """A frozen set of keys, found by what callers send."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._by_digest: Mapping[bytes, Key] = {bytes.fromhex(key.digest): key for key in keys}

    def __len__(self) -> int:
        return len(self._by_digest)

    @property
    def names(self) -> list[str]:
        """What the keys are called."""
        return [key.name for key in self._by_digest.values()]

    def key_of(self, secret: bytes) -> Key:
        """The key whose secret that is; raises Unauthenticated."""
        key = self._by_digest.get(hashlib.sha256(secret).digest())
        if key is None:
            raise Unauthenticated("The key is not known here.", presented=True)
        return key


def new_secret() -> str:
    """A secret for a new key: 256 random bits as visible ASCII."""
    return _SECRET_PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def entry_of(name: str, secret: str, scopes: Iterable[str], *, rate: str | None = None) -> str:
    """The line that makes a key of a secret, which is not in it; raises BadKeys."""
    hashed = f"sha256:{hashlib.sha256(secret.encode()).hexdigest()}"
    written = ",".join(_written(scope) for scope in scopes)
    parts = (name, hashed, written, *(() if rate is None else (f"rate={rate}",)))
    _key_of(*parts)
    return " ".join(parts)


def parse_keys(text: str) -> Keyring:
    """The keys of a text: one per line (or semicolon), `NAME sha256:DIGEST SCOPE[,SCOPE…]`, and
    where so much may be asked and no more, `rate=N` or `rate=N/BURST`: requests a second, and how
    many of them at once (N, rounded up, where it isn't said).

    A scope is `predict`, `predict:GLOB` (percent-encoded where it has a space, comma, semicolon or
    percent sign), `read` or `admin`. Empty lines and what follows a `#` at the start of a line or
    after a space are left out. Raises BadKeys.
    """
    keys: dict[str, Key] = {}
    for number, line in _entries(text):
        try:
            key = _parsed(line)
        except BadKeys as problem:
            raise BadKeys(f"line {number}: {problem}") from problem
        if key.name in keys:
            raise BadKeys(f"line {number}: a key of that name is there already")
        if any(key.digest == other.digest for other in keys.values()):
            raise BadKeys(f"line {number}: a key with that secret is there already")
        keys[key.name] = key
    return Keyring(keys.values())


def _entries(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(_ENTRY_ENDS.split(text), start=1):
        kept = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()
        if kept:
            yield number, kept


def _parsed(line: str) -> Key:
    parts = line.split()
    if len(parts) not in (3, 4):
        raise BadKeys("not NAME sha256:DIGEST SCOPES [rate=N/BURST]")
    return _key_of(*parts)


def _key_of(name: str, hashed: str, written: str, rated: str | None = None) -> Key:
    digest = _DIGEST.fullmatch(hashed)
    if not _NAME.fullmatch(name):
        raise BadKeys("a name has letters, digits and . _ @ - only")
    if digest is None:
        raise BadKeys("no sha256: and 64 hexadecimal digits after the name")
    scopes, models = _scopes(written)
    rate = None if rated is None else _rate(rated)
    return Key(name=name, digest=digest[1], scopes=scopes, models=models, rate=rate)


def _rate(written: str) -> Rate:
    found = _RATE.fullmatch(written)
    per_s = float(found[1]) if found else 0.0
    burst = int(found[2]) if found and found[2] else ceil(per_s)
    if per_s <= 0 or burst < 1:
        raise BadKeys("a rate is rate=N or rate=N/BURST, more than none a second")
    return Rate(per_s, burst)


def _scopes(written: str) -> tuple[frozenset[Scope], tuple[str, ...]]:
    """The scopes, and the globs of the models to call: none where that is all of them."""
    scopes, globs, calls_all = set(), [], False
    for each in written.split(","):
        word, colon, glob = each.partition(":")
        if word not in set(Scope) or (colon and (word != Scope.PREDICT or not glob)):
            raise BadKeys("a scope is predict, predict:GLOB, read or admin")
        scopes.add(Scope(word))
        if colon:
            globs.append(unquote(glob))
        calls_all |= word == Scope.PREDICT and not colon
    return frozenset(scopes), () if calls_all else tuple(globs)


def _written(scope: str) -> str:
    word, colon, glob = scope.partition(":")
    return f"{word}{colon}{quote(glob, safe='*?[]!-._~@:/')}"
