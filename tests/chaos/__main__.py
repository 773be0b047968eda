"""A soak of a gateway under random faults, repeatable by its seed: `make chaos`.

One gateway with two ingress replicas over several models and versions, a steady load whose every
answer is checked, and one real fault after the other: of processes, of the registry, of the state
folder, of models' own code. It ends with exit code 0 only where no answer was wrong, no request
hung, no fault cost more requests than it may, whoever asked for a fault was told what is
documented, memory stayed flat and no process was left. A lost node, a full disk and a start without
MLflow are left to tests of their own.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random, SystemRandom
from threading import Event
from typing import Any

import httpx
import pandas as pd

from tests.support.faulty_proxy import FaultyProxy, faulty_proxy
from tests.support.harm import CONTROLLER, INGRESS, MODEL, SYNC_SERVICE, kill_one, processes_called
from tests.support.processes import Gateway, RestartableMlflow, descendants_of, gateway, poll
from tests.support.processes_of import processes_of, usage_of
from tests.support.registering import Predict, client, columns, register
from tests.support.steady_load import Ask, Figures, SteadyLoad, steady_load

CALLERS = 8
INGRESS_REPLICAS = 2
ANSWERS_BEFORE_AND_AFTER = 10
RECOVERS_WITHIN_S = 90.0
WARM_WITHIN_S = 180.0
# A version that hung or killed its process is tried again before it has the next turn.
SETTINGS = {"MODELMUX_INGRESS_REPLICAS": str(INGRESS_REPLICAS), "MODELMUX_LOAD_RETRY_S": "5"}

# An ingress may grow by what its allocator keeps, and a model by what MLflow caches; a leak of a
# kilobyte per request is more than this within ten minutes.
FLAT_FACTOR, FLAT_BYTES = 1.25, 48 * 1024 * 1024
WATCHED = ("modelmux: ingress", "models")

NUMBER = columns(("x", "double"))
MODELS = {"alone": (2, 20), "together": (3, 30), "of two": (5, 50)}
# Of each of these one version is under the steady load, too: what is wrong with a request, or with
# another version in the same process, isn't the business of those.
MISBEHAVES, KILLS, HANGS = "misbehaves", "kills", "hangs"
NEIGHBOURS = {MISBEHAVES: 7, KILLS: 11}
RAISE, GARBAGE, HANG, KILL, BEHAVE = -1, -2, -3, -4, 1
TAGS = {
    HANGS: {"modelmux.timeout_s": "4"},
    "alone": {"modelmux.batching": "off"},
    "together": {"modelmux.batching": "on"},
    "of two": {"modelmux.min_replicas": "2", "modelmux.max_replicas": "2"},
}


@dataclass(frozen=True, kw_only=True)
class World:
    """Everything that faults happen to."""

    gateway: Gateway
    mlflow: RestartableMlflow
    proxy: FaultyProxy
    random: Random
    numbers: Iterator[int]
    told: dict[str, Counter[str]] = field(default_factory=dict)

    def pause(self, least_s: float, most_s: float) -> None:
        """Let the load go on for a while."""
        Event().wait(self.random.uniform(least_s, most_s))


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that goes wrong, and how many requests may fail by it each time."""

    name: str
    happen: Callable[[World], None]
    may_fail: int = 0


@dataclass(kw_only=True)
class Row:
    """What one kind of fault has cost so far."""

    times: int = 0
    sent: int = 0
    failed: int = 0
    longest_wait_s: float = 0.0
    problems: list[str] = field(default_factory=list)

    def add(self, fault: Fault, figures: Figures) -> None:
        """Count what one more of these has cost."""
        self.times += 1
        self.sent += figures.sent
        self.failed += figures.failed
        self.longest_wait_s = max(self.longest_wait_s, figures.longest_wait_s)
        if figures.wrong:
            self.problems.append(f"wrong answers, such as: {figures.wrong[0]}")
        if figures.hung:
            self.problems.append(f"{figures.hung} request(s) hung")
        if figures.failed > fault.may_fail:
            self.problems.append(f"{figures}, where {fault.may_fail} may fail")


@dataclass(frozen=True, kw_only=True)
class Misdeed:
    """Requests that a version answers badly, and what they must be told: status and code. Where
    `from_good` they come once the version answers a good one."""

    name: str
    model: str
    version: int
    deed: int
    told: str
    from_good: bool = True

    def __call__(self, world: World) -> None:
        """Ask for it, up to three times."""
        for _ in range(world.random.randint(1, 3)):
            if self.from_good:
                poll(
                    lambda: self._ask(world, BEHAVE) == "200 good",
                    timeout_s=RECOVERS_WITHIN_S,
                    what=f"a good answer of {self.model} version {self.version}",
                )
            world.told.setdefault(self.name, Counter())[self._ask(world, self.deed)] += 1

    def _ask(self, world: World, x: int) -> str:
        try:
            response = world.gateway.predict(
                self.model, {"x": x}, X_Model_Version=str(self.version)
            )
        except httpx.HTTPError as error:
            return type(error).__name__
        if response.status_code == httpx.codes.OK:
            return "200 good" if response.json() == [{"x": float(x)}] else "200 wrong"
        if response.headers["content-type"] != "application/problem+json":
            return f"{response.status_code} outside the envelope"
        unannounced = response.status_code == 503 and "Retry-After" not in response.headers
        return f"{response.status_code} {response.json()['code']}" + " at no time" * unannounced

    @property
    def fault(self) -> Fault:
        """It as one of the faults: nobody else's request may fail by it."""
        return Fault(name=self.name, happen=self)


def _deeds(factor: int) -> Predict:
    """Multiplies, but does what a negative number stands for."""

    def predict(rows: pd.DataFrame, params: Mapping[str, Any]) -> Any:
        deed = int(rows["x"].iloc[0])
        if deed == RAISE:
            raise ValueError("as it was asked to")
        if deed == GARBAGE:
            return ["garbage", object()]
        if deed == HANG:
            time.sleep(100_000)
        if deed == KILL:
            ctypes.string_at(0)
        return rows * factor

    return predict


def _fail() -> None:
    raise RuntimeError("as every load of this version")


def _times(factor: int) -> Predict:
    def predict(rows: pd.DataFrame, params: Mapping[str, Any]) -> Any:
        time.sleep(0.01)
        return rows * factor

    return predict


def _kill(title: str, *, count: int | None = None) -> Callable[[World], None]:
    """Kill one of the processes of that title, and wait until there are as many as before."""

    def happen(world: World) -> None:
        before = count or len(processes_called(world.gateway, title))
        victim = kill_one(world.gateway, title, which=world.random.randrange(10))
        poll(
            lambda: len(set(processes_called(world.gateway, title)) - {victim}) >= before,
            timeout_s=RECOVERS_WITHIN_S,
            what=f"{before} processes called {title}",
        )

    return happen


def _stop_mlflow(world: World) -> None:
    world.mlflow.stop()
    try:
        world.pause(2, 8)
    finally:
        world.mlflow.start()


def _proxy(kind: Any) -> Callable[[World], None]:
    def happen(world: World) -> None:
        with world.proxy.harm(kind, where=lambda request: "search" in request):
            world.pause(2, 5)

    return happen


def _lose_state_folder(world: World) -> None:
    """The folder is away, and the catalog changes meanwhile."""
    state = world.gateway.state_dir
    aside = state.rename(state.with_name("aside"))
    state.write_text("in the way")
    try:
        _change_registry(world)
        world.pause(1, 3)
    finally:
        state.unlink()
        aside.rename(state)


def _change_registry(world: World) -> None:
    """No fault, but work for all parts."""
    number = next(world.numbers)
    client(world.mlflow.uri).set_registered_model_alias("alone", f"a{number}", 1 + number % 2)


UNAVAILABLE = "503 model_unavailable"
MISDEEDS = (
    Misdeed(
        name="a predict raises", model=MISBEHAVES, version=2, deed=RAISE, told="500 model_failed"
    ),
    Misdeed(
        name="a predict answers garbage",
        model=MISBEHAVES,
        version=2,
        deed=GARBAGE,
        told="500 invalid_model_output",
    ),
    Misdeed(
        name="a load fails",
        model=MISBEHAVES,
        version=3,
        deed=BEHAVE,
        told=UNAVAILABLE,
        from_good=False,
    ),
    Misdeed(
        name="a predict hangs", model=HANGS, version=1, deed=HANG, told="504 deadline_exceeded"
    ),
    Misdeed(
        name="a predict kills its process", model=KILLS, version=2, deed=KILL, told=UNAVAILABLE
    ),
)

FAULTS = (
    Fault(name="model replica killed", happen=_kill(MODEL)),
    Fault(name="ingress replica killed", happen=_kill(INGRESS), may_fail=CALLERS),
    Fault(name="sync service killed", happen=_kill(SYNC_SERVICE)),
    Fault(name="Serve's controller killed", happen=_kill(CONTROLLER)),
    Fault(name="MLflow stopped", happen=_stop_mlflow),
    Fault(name="registry: slow", happen=_proxy("delay")),
    Fault(name="registry: errors", happen=_proxy("error")),
    Fault(name="registry: half a page", happen=_proxy("cut body")),
    Fault(name="registry: no answer", happen=_proxy("hang up")),
    Fault(name="state folder lost", happen=_lose_state_folder),
    *(misdeed.fault for misdeed in MISDEEDS),
    Fault(name="none: an alias moves", happen=_change_registry),
)


class Soak:
    """Faults one after the other, and what they cost."""

    def __init__(self, world: World, load: SteadyLoad) -> None:
        self._world = world
        self._load = load
        self.rows: dict[str, Row] = {fault.name: Row() for fault in FAULTS}

    def run(self, duration_s: float) -> None:
        """Each fault once, in an order by chance, and again, until the time is over."""
        ends_at = time.monotonic() + duration_s
        while True:
            for fault in self._world.random.sample(FAULTS, len(FAULTS)):
                if time.monotonic() > ends_at:
                    return
                self._world.pause(0.5, 2)
                self._suffer(fault)

    def _suffer(self, fault: Fault) -> None:
        sys.stdout.write(f"{time.strftime('%H:%M:%S')} {fault.name}\n")
        self._load.reset()
        fault.happen(self._world)
        self._load.wait_for_answers(ANSWERS_BEFORE_AND_AFTER, timeout_s=RECOVERS_WITHIN_S)
        self.rows[fault.name].add(fault, self._load.reset())


def _asks() -> list[Ask]:
    versions = [
        (name, version, factors[version - 1])
        for version in (1, 2)
        for name, factors in MODELS.items()
    ]
    versions += [(name, 1, factor) for name, factor in NEIGHBOURS.items()]
    return [
        Ask(model=name, version=version, answer=lambda n, factor=factor: [{"x": float(n * factor)}])
        for name, version, factor in versions
    ]


def _register_all(uri: str) -> None:
    for name, factors in MODELS.items():
        for factor in factors:
            register(uri, name, _times(factor), NUMBER, NUMBER)
    for name, factor in NEIGHBOURS.items():
        register(uri, name, _times(factor), NUMBER, NUMBER)
        register(uri, name, _deeds(1), NUMBER, NUMBER)
    register(uri, MISBEHAVES, _deeds(1), NUMBER, NUMBER, on_load=_fail)
    register(uri, HANGS, _deeds(1), NUMBER, NUMBER)
    client(uri).set_registered_model_alias(MISBEHAVES, "champion", 1)
    for name, tags in TAGS.items():
        for tag, value in tags.items():
            client(uri).set_registered_model_tag(name, tag, value)


@contextmanager
def _world(folder: Path, random: Random) -> Iterator[World]:
    mlflow = RestartableMlflow(folder)
    mlflow.start()
    _register_all(mlflow.uri)
    with (
        faulty_proxy(mlflow.uri) as proxy,
        gateway(proxy.url, folder, "--poll-interval-s", "1", environment=SETTINGS) as running,
    ):
        yield World(
            gateway=running, mlflow=mlflow, proxy=proxy, random=random, numbers=iter(range(10**9))
        )
    mlflow.stop()


def _memory(served: Gateway) -> dict[str, float]:
    """Resident bytes per process, by what the processes are for."""
    usage = usage_of(processes_of(served.process.pid))
    return {role: usage[role].resident_bytes / usage[role].processes for role in WATCHED}


def _grown(before: Mapping[str, float], after: Mapping[str, float]) -> Iterator[str]:
    for role in WATCHED:
        sys.stdout.write(f"{role}: {before[role] / 2**20:.0f} MiB, {after[role] / 2**20:.0f} MiB\n")
        if after[role] > before[role] * FLAT_FACTOR + FLAT_BYTES:
            yield f"{role}: grown from {before[role]:.0f} to {after[role]:.0f} bytes"


def _end(world: World, load: SteadyLoad) -> Iterator[str]:
    """SIGTERM under load; what was wrong with that."""
    load.reset()
    world.gateway.process.send_signal(signal.SIGTERM)
    code = world.gateway.process.wait(90)
    if code != 0:
        yield f"the gateway ended with exit code {code}"
    if left := descendants_of(world.gateway.process.pid):
        yield f"processes left: {left}"
    figures = load.reset()
    if figures.wrong or {failure.what for failure in figures.failures} - {"ConnectionRefusedError"}:
        yield f"SIGTERM: {figures}"


def _table(rows: Mapping[str, Row]) -> Iterable[str]:
    yield "| fault | times | sent | failed | may fail | longest wait |"
    yield "| --- | --- | --- | --- | --- | --- |"
    may_fail = {fault.name: fault.may_fail for fault in FAULTS}
    for name, row in rows.items():
        yield (
            f"| {name} | {row.times} | {row.sent} | {row.failed} | {row.times * may_fail[name]} "
            f"| {row.longest_wait_s:.1f} s |"
        )


def _told_table(told: Mapping[str, Counter[str]]) -> Iterable[str]:
    yield "| what was asked for | asked | told |"
    yield "| --- | --- | --- |"
    for name, answers in sorted(told.items()):
        said = ", ".join(f"{count} x {answer}" for answer, count in answers.most_common())
        yield f"| {name} | {answers.total()} | {said} |"


def _told_otherwise(told: Mapping[str, Counter[str]]) -> Iterator[str]:
    """What those were told who asked for a fault, and isn't what is documented."""
    for misdeed in MISDEEDS:
        for answer in told.get(misdeed.name, Counter()).keys() - {misdeed.told}:
            yield f"{misdeed.name}: who asked was told {answer}, not {misdeed.told}"


def soak(duration_s: float, seed: int) -> list[str]:
    """All that was wrong; empty where nothing was."""
    problems: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="modelmux-chaos-", ignore_cleanup_errors=True) as folder,
        _world(Path(folder), Random(seed)) as world,
        steady_load(world.gateway.url, *_asks(), callers=CALLERS, pause_s=0.02) as load,
    ):
        load.wait_for_answers(200, timeout_s=WARM_WITHIN_S)
        before = _memory(world.gateway)
        running = Soak(world, load)
        try:
            running.run(duration_s)
        except AssertionError as error:  # a `poll` that came to nothing
            problems.append(str(error))
        load.wait_for_answers(200, timeout_s=WARM_WITHIN_S)
        problems += _grown(before, _memory(world.gateway))
        problems += _end(world, load)
        sys.stdout.write("\n".join(_table(running.rows)) + "\n\n")
        sys.stdout.write("\n".join(_told_table(world.told)) + "\n")
        problems += _told_otherwise(world.told)
        if problems:
            sys.stdout.write(world.gateway.log.read_text(errors="replace")[-8000:])
    for name, row in running.rows.items():
        problems += [f"{name}: {problem}" for problem in row.problems]
    return problems


def main() -> int:
    """Run the soak; 0 where nothing was wrong."""
    parser = argparse.ArgumentParser(description="A soak under random faults.")
    parser.add_argument("--duration-s", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=None, help="Repeats the faults of a run.")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends what was started, too
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr] # to be followed in a pipe
    seed = SystemRandom().randrange(10**6) if arguments.seed is None else arguments.seed
    sys.stdout.write(f"seed {seed}: `make chaos SEED={seed}` repeats these faults\n")
    problems = soak(arguments.duration_s, seed)
    for problem in problems:
        sys.stdout.write(f"NOT GOOD: {problem}\n")
    sys.stdout.write("nothing was wrong\n" if not problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
