"""The shared deployment: what waking a model in it takes, and what many active ones cost.

Scikit-learn models with the gateway's packages, each a version of artifacts of its own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from mlflow import MlflowClient

from benchmarks.memory import own_bytes
from benchmarks.scenarios.finding import Finding, Say
from benchmarks.scenarios.first_request import steps_of
from benchmarks.scenarios.world import world
from benchmarks.work import COLUMNS, MODEL, register_model
from tests.support.processes import Gateway, poll
from tests.support.processes_of import processes_of, usage_of
from tests.support.steady_load import Ask, steady_load

_MODELS = 200
_FIRST = 20
_SECONDS = 120.0
_CONTROLLER, _OURS = "Ray: controller", ("modelmux: sync service", "modelmux: ingress")
_FIRST_BAR_S, _MEMORY_BAR, _CONTROLLER_BAR = 0.7, 40e6, 0.1
_BODY = dict.fromkeys(COLUMNS, 1.0)


class SharedDeployment:
    """200 models in one replica: woken one by one, then all asked once a second."""

    name = "shared-deployment"

    def run(self, folder: Path, say: Say) -> Sequence[Finding]:
        """All in one gateway."""
        with world(folder, _register) as (started, registry):
            names = _register_more(registry)
            poll(lambda: _synced(started), timeout_s=300.0, what="all models")
            _asked(started, MODEL)
            findings = _first_requests(started, names[:_FIRST], say)
            return [*findings, *_all_active(started, names, say)]


def _register(uri: str) -> None:
    register_model(uri)
    MlflowClient(uri, uri).set_registered_model_tag(MODEL, "modelmux.deployment", "shared")


def _register_more(registry: MlflowClient) -> list[str]:
    """Versions of the artifact that is there; each is fetched by itself."""
    first = registry.get_model_version(MODEL, "1")
    assert first.source is not None
    names = [f"shared-{number:03}" for number in range(_MODELS)]
    for name in names:
        registry.create_registered_model(name, tags={"modelmux.deployment": "shared"})
        registry.create_model_version(
            name,
            source=first.source,
            run_id=first.run_id,
            model_id=first.source.removeprefix("models:/"),
        )
    return names


def _synced(started: Gateway) -> bool:
    started.sync()
    return len(started.client.get("/models").json()["models"]) == _MODELS + 1


def _first_requests(started: Gateway, names: Sequence[str], say: Say) -> list[Finding]:
    """One after the other, artifacts not fetched yet."""
    before = sum(own_bytes(started.process.pid).values())
    took = [_asked(started, name) for name in names]
    each = (sum(own_bytes(started.process.pid).values()) - before) / len(names)
    say("  first requests: " + ", ".join(f"{seconds:.2f}" for seconds, _ in took) + " s")
    seconds = median(seconds for seconds, _ in took)
    load_ms = median(steps.get("load", 0.0) for _, steps in took)
    return [
        Finding(
            what="first request to a sleeping scikit-learn model, shared deployment",
            measured=f"{seconds:.2f} s (median of {len(names)}; {load_ms:.0f} ms of it the load, "
            "with the fetch of its artifacts)",
            bar=f"{_FIRST_BAR_S:g} s",
            met=seconds <= _FIRST_BAR_S,
        ),
        Finding(
            what="memory of its own per further active scikit-learn model, shared deployment",
            measured=f"{each / 1e6:.0f} MB",
            bar=f"{_MEMORY_BAR / 1e6:.0f} MB",
            met=each <= _MEMORY_BAR,
        ),
    ]


def _all_active(started: Gateway, names: Sequence[str], say: Say) -> list[Finding]:
    began = time.perf_counter()
    with ThreadPoolExecutor(8) as waking:
        answers = list(waking.map(lambda name: _asked(started, name)[0], names))
    woken_s = time.perf_counter() - began
    say(f"  all awake after {woken_s:.0f} s, longest wait {max(answers):.1f} s")
    expected = started.predict(MODEL, _BODY).json()
    asks = [Ask(model=name, body=_same_body, answer=lambda _: expected) for name in names]
    with steady_load(started.url, *asks, callers=len(asks), pause_s=1.0, is_paced=True) as load:
        load.wait_for_answers(1, timeout_s=120.0)
        load.reset()
        before, at = usage_of(processes_of(started.process.pid)), time.perf_counter()
        poll(lambda: time.perf_counter() >= at + _SECONDS, timeout_s=_SECONDS + 10, what="the time")
        after, spent_s = usage_of(processes_of(started.process.pid)), time.perf_counter() - at
        figures = load.reset()
    shares = {
        role: (after[role].cpu_s - before[role].cpu_s) / spent_s
        for role in (_CONTROLLER, *_OURS, "models")
    }
    say(f"  {figures}")
    say("  " + ", ".join(f"{role} {share:.1%} of a core" for role, share in shares.items()))
    own = sum(own_bytes(started.process.pid).values())
    failed = figures.failed + len(figures.wrong) + figures.hung
    return [
        Finding(
            what=f"{len(names)} active models, each asked once a second for {_SECONDS:g} s: failed",
            measured=f"{failed} of {figures.sent} (longest wait {figures.longest_wait_s:.2f} s; "
            f"{own / 1e9:.1f} GB of their own)",
            bar="none",
            met=failed == 0 and figures.sent > 0.8 * len(names) * spent_s,
        ),
        Finding(
            what="Serve's controller meanwhile",
            measured=f"{shares[_CONTROLLER]:.1%} of a core",
            bar=f"{_CONTROLLER_BAR:.0%}",
            met=shares[_CONTROLLER] <= _CONTROLLER_BAR,
        ),
    ]


def _same_body(_: int) -> Any:
    return _BODY


def _asked(started: Gateway, model: str) -> tuple[float, dict[str, float]]:
    """How long an answer took, and its steps in milliseconds."""
    began = time.perf_counter()
    response = started.predict(model, _BODY)
    took_s = time.perf_counter() - began
    assert response.status_code == 200, response.text
    return took_s, steps_of(response.headers["Server-Timing"])
