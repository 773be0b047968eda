"""Builds that failed, remembered on disk: all processes that share a folder of environments know
the same of them, and none repeats what has just failed for another. Blocks.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
    """The failures below a folder, one file each, by the digest of the environment."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._random = Random()  # noqa: S311 - no secret

    def find(self, digest: str) -> Failure | None:
        """The last failure; None where there is none, or none that can be read."""
        try:
            said = json.loads(self._file(digest).read_text(encoding="utf-8"))
            return _failure(said)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def add(self, digest: str, cause: Cause, reason: str, lines: Sequence[str]) -> Failure:
        """Remember one more, where the disk has room for it; what is to be known of it."""
        before = self.find(digest)
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
        self._file(digest).unlink(missing_ok=True)

    def remove_old(self) -> None:
        """Forget those of last week, and what was written by half."""
        with contextlib.suppress(OSError):
            for path in list(self._folder.iterdir()):
                if path.stat().st_mtime < time.time() - _KEPT_S:
                    path.unlink(missing_ok=True)

    def _file(self, digest: str) -> Path:
        return self._folder / f"{digest}.json"


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
