"""Which versions have a template of their own: one ended while they ran code, so it may be theirs.

Others may have killed it (the system for want of memory, a person), and whoever was at work beside
the one that did is suspected with it. So it is for a time only, which doubles with each suspicion:
who kills templates takes neighbours along less and less often, and never while it goes on doing it.
"""

from __future__ import annotations

from dataclasses import dataclass

CALM_S = 600.0
"""How long a version has to leave its own template alone after the first suspicion, in seconds of
having been in memory, until it is let in with others again."""


@dataclass(slots=True)
class _Suspicion:
    """`calm_s` is how long the version has to be calm after this suspicion, `left_s` what is left
    of that."""

    calm_s: float
    left_s: float


class Isolation:
    """What is held against the versions of one supervisor, as to the ends of templates."""

    def __init__(self) -> None:
        self._suspicions: dict[str, _Suspicion] = {}

    def is_alone(self, key: str) -> bool:
        """Whether the version's next process is to have a template of its own."""
        known = self._suspicions.get(key)
        return known is not None and known.left_s > 0.0

    def suspect(self, key: str) -> None:
        """The version's template has ended while that was at work, or had just been loaded."""
        known = self._suspicions.get(key)
        calm_s = CALM_S if known is None else 2.0 * known.calm_s  # infinite at last
        self._suspicions[key] = _Suspicion(calm_s, calm_s)

    def was_calm(self, key: str, seconds: float) -> None:
        """A process of the version has ended that had a template of its own, and left that alone
        while it had the version in memory for so long."""
        known = self._suspicions.get(key)
        if known is not None:
            known.left_s -= seconds
