"""What may be shown of lines that carry credentials: those of requirements, of tools and of MLflow.
Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

_LONGEST_SHOWN = 300
_LEAST_SECRET = 4

_LONGEST_READ = 4000

# Bounded where they could begin anywhere, so that long lines take no longer than they are.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s'\"<>`]+")
_USERINFO = re.compile(r"(?P<scheme>://)[^/?#\s]*@")
_QUERY = re.compile(r"(?P<name>[?&#;][^=&#\s]{1,200})=[^&#\s'\"`]+")
# What is to be a URL and lacks its beginning, or a slash of it.
_BARE_USERINFO = re.compile(r"[^\s:@/'\"<>`=]{1,100}:(?!//)[^\s@'\"<>`]{1,200}@(?=[A-Za-z0-9\[])")
_UNPRINTABLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# No secrets: they say what is meant.
_OPEN = re.compile(r"[?&#;](?:egg|subdirectory|sha256|sha384|sha512)\Z")


def masked(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without what stands before an "@" or as a query's values in its URLs, and without
    the secrets."""
    clean = _URL.sub(lambda found: _masked_url(found[0]), _UNPRINTABLE.sub("", text))
    clean = _BARE_USERINFO.sub("***@", clean)
    for secret in sorted(set(secrets), key=len, reverse=True):
        if len(secret) >= _LEAST_SECRET:
            clean = clean.replace(secret, "***")
    return clean


def shown(text: str, secrets: Iterable[str] = ()) -> str:
    """One line of it, masked and bounded."""
    if len(text) > _LONGEST_READ:
        # Not in the middle of a word, whose end may tell that it is a secret.
        text = f"{text[:_LONGEST_READ].rpartition(' ')[0]} …"
    line = masked(text, secrets).replace("\n", " ").strip()
    return line if len(line) <= _LONGEST_SHOWN else line[: _LONGEST_SHOWN - 1] + "…"


def credentials_in(texts: Iterable[str]) -> set[str]:
    """Passwords in the texts' URLs, and users without one (tokens), as written and as meant."""
    found: set[str] = set()
    for url in (url for text in texts for url in _URL.findall(text)):
        try:
            parts = urlsplit(url)
        except ValueError:
            continue
        secret = parts.password or parts.username
        if secret:
            found |= {secret, unquote(secret)}
    return found


def _masked_url(url: str) -> str:
    bare = _USERINFO.sub(r"\g<scheme>***@", url)
    return _QUERY.sub(lambda q: q[0] if _OPEN.search(q["name"]) else f"{q['name']}=***", bare)
