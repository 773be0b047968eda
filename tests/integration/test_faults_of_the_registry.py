"""What callers see when what a gateway reads and keeps is in trouble: MLflow is slow, broken,
half-way or away, also during a restart, and the disk of the state folder is full or gone; and when
a default moves meanwhile, or while its model sleeps.

One gateway that reads the registry through a real proxy, which does harm to chosen requests, and
has its state on a disk of its own. The tests are run in their order: at first it is in a terminal
and its registry away, among the last ones it is started again, without a terminal.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from registry_sync import source
from registry_sync.records import RegistryUnreachable
from registry_sync.source import MlflowRegistry
from tests.support.faulty_proxy import FaultyProxy, Harm, faulty_proxy
from tests.support.harm import MODEL, kill_one, processes_called
from tests.support.processes import (
    Gateway,
    RestartableMlflow,
    descendants_of,
    free_port,
    gateway,
    poll,
    wait_for_http,
)
from tests.support.registering import Predict, client, columns, register
from tests.support.steady_load import Ask, SteadyLoad, steady_load
from tests.support.terminals import Terminal
from tests.support.up_output import not_ours, not_ours_in_terminal

_logger = logging.getLogger(__name__)

NUMBER = columns(("x", "double"))
TEXT = columns(("x", "string"))
STEADY, HELD = "steady", "has a held version"
DOWN, UNCALLED, WARM = "moving-down", "moving-uncalled", "moving-warm"
SETTINGS = {
    "MODELMUX_DEPLOYMENT": "shared",
    "MODELMUX_IDLE_TIMEOUT_S": "4",
    "MODELMUX_LOAD_RETRY_S": "1",
    "MODELMUX_POLL_INTERVAL_S": "0.5",
}


class Registry(RestartableMlflow):
    """A registry with models that multiply."""

    def add(self, name: str, *, factor: int = 2, inputs: Any = NUMBER, breaks: bool = False) -> int:
        on_load = _break if breaks else None
        return register(self.uri, name, _times(factor), inputs, inputs, on_load=on_load)

    def add_own(self, name: str) -> None:
        """Version 1 of a model with a deployment of its own."""
        client(self.uri).create_registered_model(name, tags={"modelmux.deployment": "own"})
        self.add(name, factor=1)


def _times(factor: int) -> Predict:
    return lambda rows, params: rows * factor


def _break() -> None:
    raise RuntimeError("secret: this version can't be loaded")


def _asks_for_page(request: str) -> bool:
    return "registered-models/search" in request or "model-versions/search" in request


def _asks_for_later_page(request: str) -> bool:
    return _asks_for_page(request) and "page_token=" in request


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk of 8 MB, where one can be mounted here; else a folder."""
    folder = tmp_path_factory.mktemp("disk")
    mounting = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mounting, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    yield folder
    if mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class RestartableGateway:
    """A gateway that knows the registry by its proxy, and is started again over its state."""

    def __init__(self, folder: Path, state: Path) -> None:
        self.port, self.state = free_port(), state
        self._folder = folder
        self._running = ExitStack()
        self._terminal: Terminal | None = None

    def start_in_terminal(self) -> None:
        """Begin to; it isn't ready before its registry is there."""
        self._terminal = self._running.enter_context(Terminal())
        self._start(wait=False, terminal=self._terminal.line)

    def start(self) -> None:
        self._start()

    def _start(self, **how: Any) -> None:
        uri, state = f"http://127.0.0.1:{self.port}", ("--state-dir", str(self.state))
        self.gateway = self._running.enter_context(
            gateway(uri, self._folder, *state, environment=SETTINGS, **how)
        )

    def shown(self) -> str:
        """What it has said up to now."""
        if self._terminal is not None:
            return self._terminal.shown_so_far
        return self.gateway.log.read_text()

    def interrupt(self) -> None:
        """Ctrl-C in its terminal, which is a signal to the whole process group: a clean end that
        leaves nothing; the terminal has shown nothing of Ray's."""
        assert self._terminal is not None
        process = self.gateway.process
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 0
        no_process_stays(self.gateway)
        shown, self._terminal = self._terminal.shown, None
        assert not_ours_in_terminal(shown) == []
        self._running.close()

    def close(self) -> None:
        """End it, if it still runs."""
        self._running.close()


def no_process_stays(ended: Gateway) -> None:
    poll(lambda: not descendants_of(ended.process.pid), timeout_s=20, what="every process's end")


@pytest.fixture(scope="module")
def restartable(
    disk: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RestartableGateway]:
    """A gateway in a terminal, whose registry isn't there."""
    made = RestartableGateway(tmp_path_factory.mktemp("gateway"), disk / "state")
    made.start_in_terminal()
    yield made
    made.close()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    registry = Registry(tmp_path_factory.mktemp("registry"))
    registry.start()
    registry.add(STEADY)
    registry.add(HELD)
    yield registry
    registry.stop()


@pytest.fixture(scope="module")
def proxy(registry: Registry, restartable: RestartableGateway) -> Iterator[FaultyProxy]:
    with faulty_proxy(registry.uri, port=restartable.port) as proxy:
        wait_for_http(
            f"{restartable.gateway.url}/readyz",
            restartable.gateway.process,
            restartable.gateway.log,
        )
        served = restartable.gateway
        assert served.predict(HELD, {"x": 1}).json() == [{"x": 2.0}]
        registry.add(HELD, inputs=TEXT)
        served.sync()
        assert served.model(HELD)["held"]["version"] == 2
        yield proxy


@pytest.fixture
def served(proxy: FaultyProxy, restartable: RestartableGateway) -> Gateway:
    """The gateway that runs now."""
    assert proxy
    return restartable.gateway


@pytest.fixture
def load(served: Gateway) -> Iterator[SteadyLoad]:
    """Callers of a model that is loaded."""
    ask = Ask(model=STEADY, version=1, answer=lambda n: [{"x": float(n * 2)}])
    with steady_load(served.url, ask, callers=4, pause_s=0.2) as load:
        load.wait_for_answers(8)
        load.reset()
        yield load


def registry_as_told(served: Gateway) -> dict[str, Any]:
    shown: dict[str, Any] = served.client.get("/models").json()["registry"]
    return shown


def names(served: Gateway) -> set[str]:
    return {model["name"] for model in served.client.get("/models").json()["models"]}


def nothing_failed(load: SteadyLoad, what: str) -> None:
    load.wait_for_answers(20)
    figures = load.reset()
    _logger.info("%s: %s", what, figures)
    assert (figures.failed, figures.wrong, figures.hung) == (0, [], 0)
    assert figures.longest_wait_s < 5


def test_a_registry_that_is_away_is_waited_for(restartable: RestartableGateway) -> None:
    """It is said, and readyz is 503 meanwhile."""
    starting = restartable.gateway
    wait_for_http(f"{starting.url}/healthz", starting.process, starting.log)
    poll(lambda: "Nobody listens at" in restartable.shown(), what="the word about it")
    not_ready = starting.client.get("/readyz")
    assert (not_ready.status_code, not_ready.json()["code"]) == (503, "catalog_unavailable")


def test_a_registry_is_served_as_soon_as_it_is_there(
    served: Gateway, restartable: RestartableGateway
) -> None:
    """That it was away was said once."""
    assert served.predict(STEADY, {"x": 1}).json() == [{"x": 2.0}]
    assert restartable.shown().count("is it that address? Trying again") == 1


@pytest.mark.parametrize("kind", ["error", "cut body", "hang up"])
def test_a_page_that_does_not_come_removes_nobody(
    kind: Harm, registry: Registry, proxy: FaultyProxy, served: Gateway, load: SteadyLoad
) -> None:
    """What is known goes on being served, `/models` says what is wrong; the look after that brings
    what was missed."""
    before = names(served)
    with proxy.harm(kind, where=_asks_for_page):
        registry.add(f"meanwhile, {kind}")
        poll(lambda: registry_as_told(served)["problem"], what="the word about it")
        assert names(served) == before
        assert served.client.get("/readyz").status_code == 200
    poll(lambda: names(served) == before | {f"meanwhile, {kind}"}, what="what was missed")
    assert registry_as_told(served)["problem"] is None
    assert registry_as_told(served)["silent_since"] is None
    nothing_failed(load, f"registry: {kind}")


def test_a_slow_registry_is_only_late(
    registry: Registry, proxy: FaultyProxy, served: Gateway, load: SteadyLoad
) -> None:
    """Each of its answers takes long: what is new comes later, and nobody waits for it."""
    proxy.delay_s = 1.5
    with proxy.harm("delay", where=lambda request: True):
        registry.add("late")
        poll(lambda: "late" in names(served), timeout_s=150, what="the new model")
    nothing_failed(load, "registry: 1.5 s for each answer")


def test_a_broken_mlmodel_file_marks_one_model(
    registry: Registry, proxy: FaultyProxy, served: Gateway, load: SteadyLoad
) -> None:
    """That model says what is wrong with it; what was registered beside it is served."""
    with proxy.harm("hang up", where=_asks_for_page):
        registry.add("with a broken file")
        newest = max(registry.folder.rglob("MLmodel"), key=lambda path: path.stat().st_mtime_ns)
        newest.write_bytes(b"\xff{{: no yaml\n\t")
        registry.add("beside it")
    poll(lambda: "beside it" in names(served), what="the model beside it")
    broken = served.model("with a broken file")
    assert broken["status"] == "unservable"
    assert broken["reason"]
    assert served.predict("with a broken file", {"x": 1}).json()["code"] == "model_unservable"
    assert served.predict("beside it", {"x": 1}).json() == [{"x": 2.0}]
    nothing_failed(load, "registry: a broken MLmodel file")


def test_a_registry_that_stops_is_not_seen_and_its_return_is_noticed(
    registry: Registry, served: Gateway, load: SteadyLoad
) -> None:
    """Versions that are loaded answer on, readyz stays 200, `/models` tells since when; what is
    registered after it is back appears by itself."""
    stopped_at = datetime.now(UTC)
    registry.stop()
    try:
        poll(lambda: registry_as_told(served)["silent_since"], what="the silence told")
        since = datetime.fromisoformat(registry_as_told(served)["silent_since"])
        assert abs((since - stopped_at).total_seconds()) < 5
        load.wait_for_answers(20)
        assert served.client.get("/readyz").status_code == 200
    finally:
        registry.start()
    registry.add("after its return")
    poll(lambda: "after its return" in names(served), timeout_s=90, what="its return")
    assert registry_as_told(served) == {
        "silent_since": None, "problem": None, "snapshot_problem": None,
    }  # fmt: skip
    nothing_failed(load, "MLflow stopped")


@contextmanager
def full_disk(state: Path) -> Iterator[None]:
    """Nothing more can be written to the disk of the state folder."""
    filler = state.parent / "filler"
    if not state.parent.is_mount():
        pytest.skip("no disk can be mounted here")
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 - the only way to fill a disk
    yield
    filler.unlink()


@contextmanager
def folder_in_the_way(state: Path) -> Iterator[None]:
    """The state folder is gone, and can't be made because a file has its name."""
    aside = state.rename(state.with_name("aside"))
    state.write_text("in the way")
    yield
    state.unlink()
    aside.rename(state)


def snapshot_problems(served: Gateway) -> set[Any]:
    """What `/models` and `/readyz` tell, one after the other: for a moment that may be two."""
    registry = served.client.get("/models").json()["registry"]
    return {registry["snapshot_problem"], served.client.get("/readyz").json()["snapshot_problem"]}


def is_told(served: Gateway) -> bool:
    return all("can't be saved" in (problem or "") for problem in snapshot_problems(served))


@pytest.mark.parametrize("harm", [folder_in_the_way, full_disk])
def test_serving_goes_on_without_snapshot_and_says_so(
    harm: Callable[[Path], AbstractContextManager[None]],
    registry: Registry,
    restartable: RestartableGateway,
    served: Gateway,
    load: SteadyLoad,
) -> None:
    """What is loaded answers on; what can't be fetched is 503 for that version alone; `/models`
    and the log tell; when there is room again, snapshot and version come by themselves."""
    name, state = harm.__name__, restartable.state
    with harm(state):
        registry.add(name, factor=3)
        served.sync()
        poll(lambda: is_told(served), what="the word")
        assert "can't be saved" in restartable.shown()
        refused = served.predict(name, {"x": 1})
        assert (refused.status_code, refused.json()["code"]) == (503, "model_unavailable")
        assert int(refused.headers["Retry-After"]) >= 1
        load.wait_for_answers(20)
        assert served.client.get("/readyz").status_code == 200
    poll(lambda: snapshot_problems(served) == {None}, what="the snapshot")
    assert name in (state / "catalog.json").read_text()
    poll(lambda: served.predict(name, {"x": 1}).status_code == 200, what="the new model")
    nothing_failed(load, f"disk: {name}")


def serve(registry: Registry, served: Gateway, state: Path, name: str) -> None:
    """Have version 1 registered, asked, and known as loaded."""
    registry.add_own(name)
    served.sync()
    assert served.predict(name, {"x": 1}).json() == [{"x": 1.0}]

    def is_kept() -> bool:
        return f"{name}/1/" in " ".join(json.loads((state / "catalog.json").read_text())["loaded"])

    poll(is_kept, what=f"{name} known as loaded")


def held(served: Gateway, name: str) -> dict[str, Any]:
    """What is held of a model once it is known that it can't be loaded."""
    found: dict[str, Any] = poll(
        lambda: (held := served.model(name)["held"]) and "can't" in held["reason"] and held,
        timeout_s=120,
        what=f"the word on the version of {name} that can't be loaded",
    )
    return found


def test_a_broken_version_does_not_take_a_sleeping_model_down(
    registry: Registry, restartable: RestartableGateway, served: Gateway
) -> None:
    """A model whose replica was ended for want of calls is woken to try a new version: one that
    can't be loaded is held with the reason and the old one answers, a good one takes over."""
    name = "moving-asleep"
    serve(registry, served, restartable.state, name)
    poll(lambda: not processes_called(served, f"{MODEL}{name}"), timeout_s=120, what="its sleep")
    registry.add(name, factor=2, breaks=True)
    served.sync()
    told = held(served, name)
    assert told["version"] == 2
    assert "secret" not in told["reason"]
    answer = served.predict(name, {"x": 1})
    assert (answer.status_code, answer.headers["X-Model-Version"]) == (200, "1")
    detail = poll(
        lambda: (now := served.model(name))["version_details"][0]["reason"] and now,
        what="the reason beside the version",
    )
    assert (detail["status"], detail["version_details"][0]["servable"]) == ("ready", False)
    registry.add(name, factor=3)
    served.sync()
    poll(lambda: served.model(name)["default_version"] == 3, timeout_s=120, what="version 3")
    assert served.predict(name, {"x": 1}).json() == [{"x": 3.0}]
    client(registry.uri).delete_registered_model(name)


def test_a_model_registered_anew_begins_a_new_contract(
    registry: Registry, proxy: FaultyProxy, served: Gateway
) -> None:
    """Deleted and registered again between two looks with another signature, it answers by that."""
    name = "moving-anew"
    registry.add(name, factor=1)
    served.sync()
    assert served.predict(name, {"x": 1}).json() == [{"x": 1.0}]
    with proxy.harm("hang up", where=_asks_for_page):
        client(registry.uri).delete_registered_model(name)
        registry.add(name, inputs=TEXT)
    served.sync()
    answer = served.predict(name, {"x": "ab"})
    assert (answer.status_code, answer.json()) == (200, [{"x": "abab"}])
    assert served.model(name)["held"] is None


@pytest.fixture(scope="module")
def before(
    registry: Registry, proxy: FaultyProxy, restartable: RestartableGateway
) -> dict[str, Any]:
    """What was told before the gateway was ended, and started while its registry was away. What
    happened to that meanwhile: new defaults, one of which can't be loaded."""
    assert proxy
    served = restartable.gateway
    serve(registry, served, restartable.state, DOWN)
    for name in (UNCALLED, WARM):
        registry.add_own(name)
    registry.add(WARM, factor=2)
    client(registry.uri).set_registered_model_alias(WARM, "champion", "1")
    client(registry.uri).set_registered_model_tag(WARM, "modelmux.min_replicas", "1")
    served.sync()
    told = {
        "contract": served.model(STEADY)["request_schema"],
        "held": served.model(HELD)["held"],
    }
    restartable.interrupt()
    registry.add(DOWN, factor=2, breaks=True)
    registry.add(UNCALLED, factor=2)
    registry.stop()
    restartable.start()
    return told


def test_a_restart_without_the_registry_serves_what_was_served(
    before: dict[str, Any], registry: Registry, served: Gateway
) -> None:
    """Models, contract and what is held come from the snapshot, artifacts from the disk."""
    ask = Ask(model=STEADY, version=1, answer=lambda n: [{"x": float(n * 2)}])
    try:
        with steady_load(served.url, ask, callers=4, pause_s=0.2) as load:
            load.wait_for_answers(20)
        assert load.figures.failed == 0
        _logger.info("up without MLflow: %s", load.figures)
        assert served.model(STEADY)["request_schema"] == before["contract"]
        assert served.model(HELD)["held"] == before["held"]
        assert served.predict(HELD, {"x": 1}).json() == [{"x": 2.0}]
        poll(lambda: registry_as_told(served)["problem"], what="the silence told")
    finally:
        registry.start()


def test_a_broken_version_that_came_meanwhile_does_not_take_a_model_down(
    before: dict[str, Any], served: Gateway
) -> None:
    """It was registered while the gateway was down: the first look prepares it, holds it, and the
    version that was served before answers. What nobody called isn't started for its new default,
    and what wants a replica has one, whichever of its versions is the default."""
    assert before
    assert held(served, DOWN)["version"] == 2
    answer = served.predict(DOWN, {"x": 1})
    assert (answer.status_code, answer.headers["X-Model-Version"]) == (200, "1")
    assert served.model(UNCALLED)["default_version"] == 2
    poll(
        lambda: processes_called(served, f"{MODEL}{WARM}"),
        timeout_s=60,
        what="the process that is always there",
    )
    assert not processes_called(served, f"{MODEL}{UNCALLED}")


@pytest.mark.parametrize("kind", ["error", "cut body", "hang up"])
def test_half_a_reading_is_none(
    kind: Harm, registry: Registry, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the first page comes and the second doesn't, the look failed as a whole."""
    monkeypatch.setattr(source, "_PAGE", 4)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # MLflow would try for minutes
    reader = MlflowRegistry(tracking_uri=proxy.url)
    whole = reader.read()
    assert len(whole) > 1
    with proxy.harm(kind, where=_asks_for_later_page), pytest.raises(RegistryUnreachable):
        reader.read()
    assert proxy.harmed
    assert reader.read() == whole


def test_a_gateway_whose_ray_is_gone_says_so_and_ends(
    served: Gateway, restartable: RestartableGateway
) -> None:
    """Nothing can be served without it. The last one of this module: the gateway is gone."""
    kill_one(served, "src/ray/raylet/raylet ")
    assert served.process.wait(60) == 2
    no_process_stays(served)
    told = restartable.shown()
    assert "Ray's raylet has ended, and nothing can be served without it" in told
    assert not_ours(told) == []
    assert "Ray's processes log to " in (restartable.state / "ray.log").read_text()
