"""What a scenario finds: figures beside their bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A figure in words, and the bar, if there is one, with whether it is reached."""

    what: str
    measured: str
    bar: str = ""
    met: bool | None = None


class Scenario(Protocol):
    """One thing about modelmux that isn't a matter of contenders."""

    @property
    def name(self) -> str:
        """In one word, for the command line."""
        ...

    def run(self, folder: Path, say: Say) -> Sequence[Finding]:
        """Start what it needs, measure, end it."""
        ...


def at_most(what: str, ratio: float, most: float, detail: str) -> Finding:
    """A ratio that must not be larger."""
    return Finding(
        what=what,
        measured=f"{ratio:.2f} × ({detail})",
        bar=f"at most {most:g} ×",
        met=ratio <= most,
    )


def at_least(what: str, ratio: float, least: float, detail: str) -> Finding:
    """A ratio that must not be smaller."""
    return Finding(
        what=what,
        measured=f"{ratio:.2f} × ({detail})",
        bar=f"at least {least:g} ×",
        met=ratio >= least,
    )
