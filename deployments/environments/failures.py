"""Builds that failed, remembered on disk: all processes that share a folder of environments know
the same of them, and none repeats what has just failed for another by the same options. A restart
with another index, or another proxy, is somebody's mend: it is tried at once. Blocks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Literal, get_args

from deployments.backoff import Backoff
from deployments.environments.whole_file import write_whole

Cause = Literal["python", "files", "packages", "too_long", "too_large", "in_use", "disk"]

_CAUSES: Mapping[object, Cause] = {each: each for each in get_args(Cause)}
# Until somebody mends the model, the index or the machine.
_PAUSES = Backoff(least_s=60.0, most_s=3600.0)
# These pass by themselves.
_SHORT_PAUSES = Backoff(least_s=10.0, most_s=300.0)
_PASSING = frozenset({"in_use", "disk"})

_KEPT_S = 7 * 24 * 3600.0

_OF_OPTIONS = ("UV_", "SSL_CERT_")
_CACHE = "UV_CACHE_DIR"  # where it is mends nothing
_PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A build that failed, the last of so many in a row (`times`); its reason and the tools' lines
    may be shown. Until `retry_at` nobody tries again who isn't told to. Unix time."""

    cause: Cause
    reason: str
    lines: tuple[str, ...]
    failed_at: float
    times: int
    retry_at: float

    def is_fresh(self, now: float) -> bool:
        """Whether it isn't tried again yet; a clock that was set back doesn't make it so."""
        return now < self.retry_at <= now + _PAUSES.most_s


class Failures:
    """The failures below a folder, one file each, by the digest of the environment and that of the
    options that the process' variables give uv."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._options = _options(os.environ)
        self._random = Random()  # noqa: S311 - no secret

    def find(self, digest: str) -> Failure | None:
        """The last failure by these options, else one by others, which is tried again at once; None
        where there is none, or none that can be read."""
        own = _read(self._file(digest))
        if own is not None:
            return own
        others = [_read(path) for path in self._folder.glob(f"{digest}-*.json")]
        known = [each for each in others if each is not None]
        if not known:
            return None
        return replace(max(known, key=lambda each: each.failed_at), retry_at=0.0)

    def add(self, digest: str, cause: Cause, reason: str, lines: Sequence[str]) -> Failure:
        """Remember one more, where the disk has room for it; what is to be known of it."""
        before = _read(self._file(digest))
        times = 1 if before is None else before.times + 1
        pauses = _SHORT_PAUSES if cause in _PASSING else _PAUSES
        now = time.time()
        failure = Failure(
            cause=cause,
            reason=reason,
            lines=tuple(lines),
            failed_at=now,
            times=times,
            retry_at=now + pauses.pause_s(times - 1, self._random),
        )
        with contextlib.suppress(OSError):
            write_whole(self._file(digest), json.dumps(asdict(failure)))
        return failure

    def forget(self, digest: str) -> None:
        """It has been built."""
        for path in self._folder.glob(f"{digest}-*.json"):
            path.unlink(missing_ok=True)

    def remove_old(self) -> None:
        """Forget those of last week, and what was written by half."""
        with contextlib.suppress(OSError):
            for path in list(self._folder.iterdir()):
                if path.stat().st_mtime < time.time() - _KEPT_S:
                    path.unlink(missing_ok=True)

    def _file(self, digest: str) -> Path:
        return self._folder / f"{digest}-{self._options}.json"


def _options(variables: Mapping[str, str]) -> str:
    """Tells apart what uv is told by variables; no secret of theirs can be read from it."""
    told = sorted(
        (name, value)
        for name, value in variables.items()
        if (name.startswith(_OF_OPTIONS) and name != _CACHE) or name.upper() in _PROXIES
    )
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _read(path: Path) -> Failure | None:
    try:
        return _failure(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _failure(said: Mapping[str, object]) -> Failure:
    """Raises KeyError, TypeError, ValueError for what isn't one."""
    lines = said["lines"]
    if not isinstance(lines, list):
        raise TypeError("lines")
    return Failure(
        cause=_CAUSES[said["cause"]],
        reason=str(said["reason"]),
        lines=tuple(map(str, lines)),
        failed_at=float(said["failed_at"]),  # type: ignore[arg-type]
        times=int(said["times"]),  # type: ignore[call-overload]
        retry_at=float(said["retry_at"]),  # type: ignore[arg-type]
    )
