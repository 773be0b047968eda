"""Captured requests under load: what they cost, also where nothing can be written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.scenarios.finding import Finding, Say, at_least
from benchmarks.scenarios.tagged_rounds import AGAIN, Compared, Variant, rounds_in_turn
from benchmarks.scenarios.world import world
from benchmarks.work import register_model

_CALLERS = 64
_ROUNDS = 9
_BAR = 0.97
_TENTH = "10%"


class CapturedRequests:
    """A tenth of the requests is captured, and all of them."""

    name = "capture"

    def run(self, folder: Path, say: Say) -> Sequence[Finding]:
        """Files are written every two seconds, as many as there can be."""
        captured = folder / "captured"
        setting = {
            "MODELMUX_CAPTURE_URL": str(captured),
            "MODELMUX_CAPTURE_FILE_AGE_S": "2",
        }
        variants = [AGAIN, _variant(_TENTH, "10"), _variant("100%", "100")]
        with world(folder, _register, environment=setting) as (started, registry):
            found = rounds_in_turn(
                started, registry, variants, callers=_CALLERS, rounds=_ROUNDS, say=say
            )
        say(f"  {sum(1 for _ in captured.glob('*/*/*.parquet'))} files")
        return [_finding(name, compared) for name, compared in found.items()]


def _variant(name: str, percent: str) -> Variant:
    return Variant(
        name=f"capture of {name}", tags={"modelmux.capture": percent}, ready=lambda told: True
    )


def _finding(name: str, compared: Compared) -> Finding:
    ratio = compared.ratio(lambda each: each.per_s)
    detail = compared.detail(lambda each: each.per_s, "/s")
    what = f"{_CALLERS} callers, {name}: requests/s"
    if not name.endswith(_TENTH):
        return Finding(what=what, measured=f"{ratio:.3f} × ({detail})")
    return at_least(what, ratio, _BAR, f"{ratio:.3f}; {detail}")


def _register(uri: str) -> None:
    register_model(uri)
