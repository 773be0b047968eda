"""The demo's transformer with 16 callers: the same with batching on as with it off."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.driving import LoadPlan, drive
from benchmarks.figures import Figures
from benchmarks.paths import DEMO_CACHE, ROOT
from benchmarks.scenarios.finding import Finding, Say, at_least
from benchmarks.scenarios.world import exchanges, predict_url, world
from examples.phrases import PHRASES

_MODEL = "translation_model"
_TAG = "modelmux.batching"
_CALLERS = 16
_BAR = 3.0


class TransformerBatching:
    """The answers with batching have to be those without, byte for byte."""

    name = "transformer"

    def run(self, folder: Path, say: Say) -> Sequence[Finding]:
        """Off first, then on, by the model's tag."""
        bodies = [{"prompt": phrase.en} for phrase in PHRASES[:_CALLERS]]
        say("Registering the translator (the first time it is trained, about a minute) …")
        with world(folder, _register) as (started, registry):
            found: dict[str, Figures] = {}
            registry.set_registered_model_tag(_MODEL, _TAG, "off")
            started.sync()
            asked = exchanges(started, _MODEL, bodies)
            for setting in ("off", "on"):
                registry.set_registered_model_tag(_MODEL, _TAG, setting)
                started.sync()
                plan = LoadPlan(url=predict_url(started, _MODEL), exchanges=asked, callers=_CALLERS)
                found[setting] = drive(plan).figures
                say(f"  batching {setting}: {found[setting].per_s:.1f} requests/s")
        off, on = found["off"].per_s, found["on"].per_s
        detail = f"{on:.1f} instead of {off:.1f} requests/s"
        return [at_least("transformer, 16 callers, batching on", on / off, _BAR, detail)]


def _register(uri: str) -> None:
    """In a process of its own, which leaves its memory and its threads."""
    command = [sys.executable, "-m", "examples.registration", "--tracking-uri", uri]
    subprocess.run(
        [*command, "--only", _MODEL, "--cache-dir", str(DEMO_CACHE)],
        check=True,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
