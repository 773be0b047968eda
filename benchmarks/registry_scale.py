"""What the size of the registry costs: a gateway over 1,000 models beside one over 10.

`python -m benchmarks.registry_scale` starts two real MLflow servers on SQLite and two real
`modelmux up`, and prints each figure beside its bar. The two gateways run side by side and are
asked in turns, so that what else happens on the machine hits both.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated
from urllib.parse import urlsplit

import httpx
import typer
from mlflow import MlflowClient
from rich.console import Console

from benchmarks.filled_registry import RegistryPlan, fill_registry
from benchmarks.paths import BENCH
from tests.support.processes import Gateway, gateway, mlflow_server, poll
from tests.support.processes_of import Usage, processes_of, session_of, usage_of

_FEW_MODELS = 10
_START_TIMEOUT_S = 300.0
_ROUNDS = 7
_REQUESTS = 150
_WARM_UP = 50
_HOT = 1
_SYNCS = 5
_CHANGES = 3
_CHANGE_EVERY_S = 10.0
# 0.63 s before environments were looked at, and a fifth more, for 1,000 models with 3 versions.
_SYNC_BAR = "under 0.76 s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A gateway, the registry it serves, and how long it took to be ready."""

    gateway: Gateway
    plan: RegistryPlan
    registry: MlflowClient
    registry_session: int
    ready_after_s: float

    def hot_request(self) -> Callable[[], float]:
        """Asks the hot model once, on a connection that stays open; seconds until the answer."""
        parts = urlsplit(self.gateway.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        path = f"/models/{self.plan.name(_HOT)}/predict"
        body = json.dumps(self.plan.record(_HOT))
        headers = {"Content-Type": "application/json"}

        def ask() -> float:
            started = time.perf_counter()
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status == 200, content
            return time.perf_counter() - started

        return ask


class Report:
    """What was measured, printed line by line as it is known."""

    def __init__(self) -> None:
        self._out = Console(highlight=False, soft_wrap=True)

    def add(self, figure: str, measured: str, bar: str = "") -> None:
        """One line; `bar` is empty where nothing is asked for."""
        self._out.print(f"{figure:<46} {measured:<62} {bar}".rstrip())


def measure(folder: Path, report: Report, *, models: int, versions: int, idle_s: float) -> None:
    """All figures; the registries and logs are kept in `folder`."""
    with ExitStack() as stack:
        few = stack.enter_context(_contender(folder / "few", _FEW_MODELS, versions))
        many = stack.enter_context(_contender(folder / "many", models, versions))
        _first_catalog(report, few, many)
        _quiet_syncs(report, many)
        _idle(report, many, idle_s)
        _memory(report, few, many, "after the start")
        _documents(report, many)
        _fetch(few, "/openapi.json")
        _memory(report, few, many, "after /openapi.json", "under 100 kB")
        _hot_model(report, few, many)
        _changes_under_load(report, many)


@contextmanager
def _contender(folder: Path, models: int, versions: int) -> Iterator[Contender]:
    plan = RegistryPlan(models=models, versions=versions)
    registry = folder / f"registry-{models}x{versions}"
    fill_registry(registry, plan)
    with mlflow_server(registry) as url:
        started = time.perf_counter()
        with ExitStack() as stack:
            state = folder / f"run-{time.time_ns()}"
            state.mkdir()
            running = stack.enter_context(gateway(url, state, wait=False))
            poll(lambda: _is_ready(running), timeout_s=_START_TIMEOUT_S, what="the gateway")
            took = time.perf_counter() - started
            yield Contender(
                gateway=running,
                plan=plan,
                registry=MlflowClient(url, url),
                registry_session=session_of(str(registry)),
                ready_after_s=took,
            )


def _is_ready(gateway: Gateway) -> bool:
    assert gateway.process.poll() is None, gateway.log.read_text(errors="replace")[-4000:]
    try:
        return gateway.client.get("/readyz").is_success
    except httpx.HTTPError:
        return False


def _first_catalog(report: Report, few: Contender, many: Contender) -> None:
    report.add(f"start to ready, {few.plan.models} models", f"{few.ready_after_s:.1f} s")
    report.add(
        f"start to ready, {many.plan.models} models", f"{many.ready_after_s:.1f} s", "under 60 s"
    )


def _quiet_syncs(report: Report, many: Contender) -> None:
    spent = [_timed(many.gateway.sync) for _ in range(_SYNCS)]
    report.add("sync with nothing changed", _spread(spent), _SYNC_BAR)


def _idle(report: Report, many: Contender, idle_s: float) -> None:
    """Shares of one core over a while in which nobody asks anything."""
    _pause(10.0)  # what the start left to do is done
    before = _usage(many)
    _pause(idle_s)
    after = _usage(many)
    for role in sorted(after):
        used = after[role].cpu_s - before.get(role, Usage()).cpu_s
        report.add(f"idle: {role}", f"{used / idle_s:.1%} of one core")
    own = sum(
        after[role].cpu_s - before[role].cpu_s for role in after if role.startswith("modelmux")
    )
    report.add("idle: modelmux in total", f"{own / idle_s:.1%} of one core", "under 10%")


def _usage(contender: Contender) -> dict[str, Usage]:
    usage = usage_of(processes_of(contender.gateway.process.pid))
    return {**usage, **usage_of(processes_of(contender.registry_session), "MLflow server")}


def _memory(report: Report, few: Contender, many: Contender, when: str, bar: str = "") -> None:
    usages = [_usage(contender) for contender in (few, many)]
    sizes = [usage["modelmux: ingress"].resident_bytes for usage in usages]
    each = (sizes[1] - sizes[0]) / (many.plan.models - few.plan.models)
    report.add(
        f"ingress replica {when}",
        f"{sizes[1] / 1e6:.0f} MB, {each / 1e3:.1f} kB more per model",
        bar,
    )
    counts = [sum(u.processes for u in usage.values()) for usage in usages]
    report.add(f"processes {when}", f"{counts[1]} ({counts[0]} with few models)", "the same")


def _documents(report: Report, many: Contender) -> None:
    first = _timed(lambda: _fetch(many, "/openapi.json"))
    again = [_timed(lambda: _fetch(many, "/openapi.json")) for _ in range(_SYNCS)]
    size = len(many.gateway.client.get("/openapi.json").content)
    report.add(f"/openapi.json ({size / 1e6:.1f} MB), first", f"{first * 1e3:.0f} ms", "under 1 s")
    report.add("/openapi.json, after", _spread(again), "under 50 ms")
    _change(many, 0)
    changed = _timed(lambda: _fetch(many, "/openapi.json"))
    report.add("/openapi.json, one model changed", f"{changed * 1e3:.0f} ms", "under 1 s")
    tag = many.gateway.client.get("/openapi.json").headers["ETag"]
    known = [
        _timed(lambda: many.gateway.client.get("/openapi.json", headers={"If-None-Match": tag}))
        for _ in range(_SYNCS)
    ]
    report.add("/openapi.json, not modified", _spread(known))
    report.add("/models", _spread([_timed(lambda: _fetch(many, "/models")) for _ in range(_SYNCS)]))


def _fetch(contender: Contender, path: str) -> None:
    contender.gateway.client.get(path).raise_for_status()


def _change(contender: Contender, index: int) -> None:
    """Move an alias that nobody uses, and have it seen."""
    name = contender.plan.name(100 + index if contender.plan.models > 200 else index)
    contender.registry.set_registered_model_alias(name, f"mark-{time.time_ns()}", "1")
    assert name in contender.gateway.sync()["changed"]


def _hot_model(report: Report, few: Contender, many: Contender) -> None:
    askers = [contender.hot_request() for contender in (few, many)]
    for ask in askers:
        for _ in range(_WARM_UP):
            ask()
    rounds: tuple[list[float], list[float]] = ([], [])
    for turn in range(_ROUNDS):
        for index in (0, 1) if turn % 2 else (1, 0):
            rounds[index].append(median(askers[index]() for _ in range(_REQUESTS)))
    one, other = (median(spent) * 1e3 for spent in rounds)
    report.add(
        "hot model, one caller, median",
        f"{other:.2f} ms ({one:.2f} ms with few models): {other / one:.3f}",
        "under 1.1 times",
    )


def _changes_under_load(report: Report, many: Contender) -> None:
    """The hot model's slow requests while the registry is quiet, and while it changes."""
    ask = many.hot_request()
    quiet = _ask_until(ask, time.perf_counter() + _CHANGES * _CHANGE_EVERY_S)
    busy: list[float] = []
    for index in range(_CHANGES):
        name = many.plan.name((200 + index) % many.plan.models)
        many.registry.set_registered_model_alias(name, f"mark-{time.time_ns()}", "1")
        busy += _ask_until(ask, time.perf_counter() + _CHANGE_EVERY_S)
    for label, spent in (("registry quiet", quiet), ("registry changing", busy)):
        percentiles = quantiles(spent, n=1000)
        report.add(
            f"hot model, {label}",
            f"p50 {percentiles[499] * 1e3:.1f}, p99 {percentiles[989] * 1e3:.1f}, "
            f"p99.9 {percentiles[998] * 1e3:.1f}, most {max(spent) * 1e3:.1f} ms",
        )


def _ask_until(ask: Callable[[], float], end: float) -> list[float]:
    spent = []
    while time.perf_counter() < end:
        spent.append(ask())
    return spent


def _timed(what: Callable[[], object]) -> float:
    started = time.perf_counter()
    what()
    return time.perf_counter() - started


def _pause(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    poll(lambda: time.monotonic() >= deadline, timeout_s=seconds + 10, what="the pause")


def _spread(spent: Sequence[float]) -> str:
    return f"{median(spent) * 1e3:.0f} ms ({min(spent) * 1e3:.0f} to {max(spent) * 1e3:.0f})"


def main(
    models: Annotated[int, typer.Option(help="Registered models.")] = 1000,
    versions: Annotated[int, typer.Option(help="Versions of each.")] = 3,
    idle_s: Annotated[float, typer.Option(help="Seconds over which idling is measured.")] = 30.0,
    folder: Annotated[Path, typer.Option(help="Where registries and logs are kept.")] = BENCH
    / "registry-scale",
) -> None:
    """Measure what the size of the registry costs."""
    measure(folder.absolute(), Report(), models=models, versions=versions, idle_s=idle_s)


if __name__ == "__main__":
    typer.run(main)
