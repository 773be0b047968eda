"""What it costs a request that its model has a canary: the draw, and another version's process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient

from benchmarks.scenarios.finding import Finding, Say, at_most
from benchmarks.scenarios.tagged_rounds import AGAIN, Compared, Variant, rounds_in_turn
from benchmarks.scenarios.world import CHAMPION, world
from benchmarks.work import MODEL, register_model

_CALLERS = (1, 64)
_ROUNDS = 7
# Two of the same differ by as much on a machine that does other things too.
_NOISE = 1.05

# Each request is drawn, and hardly one goes there.
_DRAWN = "drawn"
_TENTH = "10%"


class CanaryRouting:
    """The same model twice, so that the answers stay what they were."""

    name = "canary"

    def run(self, folder: Path, say: Say) -> Sequence[Finding]:
        """With one caller and with many."""
        variants = [AGAIN, _variant(_DRAWN, "2:0.000001"), _variant(_TENTH, "2:10")]
        with world(folder, _register) as (started, registry):
            return [
                _finding(callers, name, compared)
                for callers in _CALLERS
                for name, compared in rounds_in_turn(
                    started, registry, variants, callers=callers, rounds=_ROUNDS, say=say
                ).items()
            ]


def _variant(name: str, share: str) -> Variant:
    return Variant(
        name=f"canary, {name}",
        tags={"modelmux.canary": share},
        ready=lambda told: told["canary"] is not None and told["canary"]["state"] == "running",  # type: ignore[index]
    )


def _finding(callers: int, name: str, compared: Compared) -> Finding:
    ratio = 1 / compared.ratio(lambda each: each.per_s)
    detail = compared.detail(lambda each: each.per_s, "/s")
    what = f"{callers} callers, {name}: time per request"
    if name.endswith(_TENTH):
        return Finding(what=what, measured=f"{ratio:.2f} × ({detail})")
    return at_most(what, ratio, _NOISE, detail)


def _register(uri: str) -> None:
    for _ in range(2):
        register_model(uri)
    MlflowClient(uri, uri).set_registered_model_alias(MODEL, CHAMPION, "1")
