"""What happened to a model's default and its canary, as it is told: values only."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Event = Literal[
    "added", "removed", "registered_anew", "default", "promoted", "rolled_back", "fell_back",
    "accepted", "held", "released", "alias", "shadow",
    "canary_began", "canary_changed", "canary_stopped", "canary_ended",
]  # fmt: skip
"""`default`: another version answers, by the rule; `promoted`: because the alias was moved to it;
`rolled_back`: because it was moved back; `fell_back`: because the default is gone; `accepted`: it
breaks the contract, and is let in by its tag; `held` and `released`: of the gate; `shadow`: another
version is asked beside the default, or none. Of canaries, from the default version to theirs:
`canary_began`, `canary_changed` (another share), `canary_stopped` (it failed too often),
`canary_ended`."""


class HistoryEntry(BaseModel):
    """One change of one model. `before` and `after` are version numbers, None where there is none;
    `alias` names the alias of an `alias` event. `at` is Unix time, `generation` the catalog's in
    which it was so first."""

    model_config = ConfigDict(frozen=True)

    at: float
    model: str
    event: Event
    before: int | None = None
    after: int | None = None
    alias: str | None = None
    why: str | None = None
    generation: int
