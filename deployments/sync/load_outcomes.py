"""What the outcome of a load or of a first call says about a version that is to take over. Must not
import ray."""

from __future__ import annotations

from typing import Any

from deployments.model_calls.outcomes import Outcome

_CANNOT_BE_LOADED = "It can't be loaded; the log of its process says why."
_SUSPENDED = "Its calls ended or held up its processes; the log says when."


def why_not_loaded(outcome: Outcome) -> str | None:
    """Why the version isn't in memory, a sentence for people; None where it is."""
    kind, value = outcome
    if kind == "suspended":
        return _SUSPENDED
    if kind not in ("load_failed", "loading"):
        return None
    reason = _reason_in(value)
    return f"It can't be loaded: {reason}." if reason else _CANNOT_BE_LOADED


def _reason_in(value: Any) -> str | None:
    """The reason of a failed load; processes of an earlier release tell seconds alone."""
    return value.get("reason") if isinstance(value, dict) else None
