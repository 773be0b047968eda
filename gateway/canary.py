"""A canary: a version that has a share of the requests that name none.

Owns what is told of one, who goes there, and what came of it in this process. Which version it is
and whether it may have any is decided where the catalog is made (`registry_sync.canary`). Must not
import ray, mlflow or fastapi.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from random import random
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from gateway.errors import DeadlineExceeded, GatewayError

DEFAULT_HEADER = "X-Session-ID"
DEFAULT_MIN_REQUESTS = 20

RawHeaders: TypeAlias = Iterable[tuple[bytes, bytes]]
"""A request's headers as ASGI has them: names in lower case."""

CanaryState = Literal["running", "waiting", "stopped", "ended"]
"""`running`: it has its share; `waiting`: it may have none, or not yet; `stopped`: it failed too
often; `ended`: it is the default by now."""

Counts: TypeAlias = Mapping[str, tuple[int, int]]
"""By trial: how many requests a canary had that say something about it, and how many failed."""

# RFC 9110, section 5.1.
_FIELD_NAME = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"

# Who waits for less says nothing about the model by leaving.
_PATIENT_S = 1.0


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CanaryRule(_Frozen):
    """What a model's tags say: `percent` of the requests that name no version go to `selector` (an
    alias, a number or `latest`), sticky by `header` where it is sent.

    It is stopped where of at least `min_requests` more than `max_error_ratio` failed, None: never.
    """

    selector: str
    percent: float = Field(ge=0.0, le=100.0)
    header: str = Field(default=DEFAULT_HEADER, max_length=200, pattern=_FIELD_NAME)
    max_error_ratio: float | None = Field(default=None, ge=0.0, le=1.0)
    min_requests: int = Field(default=DEFAULT_MIN_REQUESTS, ge=1)


class CanaryStop(_Frozen):
    """A version that was stopped as a canary, the default that it was beside, and why; the versions
    by their fingerprints."""

    default: str
    canary: str
    why: str


class Canary(_Frozen):
    """A canary as it is. `version` is None where there is none of that name. `why` is a sentence,
    None while it runs. `trial` names what is counted of it: another pair of versions or another
    rule is another trial. `stops` outlive the trials of a rule."""

    rule: CanaryRule
    version: int | None
    state: CanaryState
    why: str | None = None
    trial: str = ""
    stops: tuple[CanaryStop, ...] = ()

    @property
    def warning(self) -> str | None:
        """What whoever set the tag should know: why nobody goes there."""
        if self.state not in ("waiting", "stopped"):
            return None
        return f"Nobody goes to the canary {self.rule.selector}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Who goes to a model's canary: `share` (0 to 1) of those who name no version.

    Whoever sends `header` (in lower case) goes where its value falls: always to the same side, in
    every process and release, and in for good when the share grows. Others are drawn one by one.
    """

    model: str
    header: bytes
    share: float

    def takes(self, headers: RawHeaders) -> bool:
        """Whether the canary has the request with these headers."""
        for name, value in headers:
            if name == self.header and (said := value.strip()):
                return _place(self.model, said) < self.share
        return random() < self.share  # noqa: S311 - no secret


def _place(model: str, value: bytes) -> float:
    """Where a value falls, from 0 up to but not 1. Never to be changed: callers would change sides
    with the release. By the model, too: else the same callers were everybody's canaries."""
    digest = blake2b(model.encode() + b"\0" + value, digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


class Trials:
    """What came of the requests that canaries had, in one process, from its start.

    Counted are those that a version answered, and those that failed by its own doing: what a caller
    sent wrongly, or had refused, says nothing about it. `news` is set with each.
    """

    def __init__(self) -> None:
        self._counts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
        self.news = asyncio.Event()

    def note_answer(self, trial: str) -> None:
        """The canary has answered."""
        self._counts[trial][0] += 1
        self.news.set()

    def note_error(self, trial: str, error: GatewayError, *, lowered_to_s: float | None) -> None:
        """It hasn't; `lowered_to_s` is the deadline where that was the caller's, an earlier one
        than the model's."""
        is_hasty = lowered_to_s is not None and lowered_to_s < _PATIENT_S
        if not error.by_model or (is_hasty and isinstance(error, DeadlineExceeded)):
            return
        counts = self._counts[trial]
        counts[0] += 1
        counts[1] += 1
        self.news.set()

    def counts(self) -> Counts:
        """All of them, to be told."""
        return {trial: (requests, errors) for trial, (requests, errors) in self._counts.items()}

    def forget_all_but(self, trials: Collection[str]) -> None:
        """Drop what nobody asks for any more."""
        for trial in self._counts.keys() - set(trials):
            del self._counts[trial]
