"""What callers see when what a gateway reads and keeps is in trouble: MLflow is slow, broken,
half-way or away, also during a restart, and the disk of the state folder is full or gone.

One gateway that reads the registry through a real proxy, which does harm to chosen requests, and
has its state on a disk of its own.
"""

from __future__ import annotations

import errno
import logging
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
from tests.support.harm import kill_one
from tests.support.processes import (
    Gateway,
    RestartableMlflow,
    descendants_of,
    end,
    gateway,
    poll,
)
from tests.support.registering import Predict, columns, register
from tests.support.steady_load import Ask, SteadyLoad, steady_load
from tests.support.up_output import not_ours

_logger = logging.getLogger(__name__)

NUMBER = columns(("x", "double"))
TEXT = columns(("x", "string"))
STEADY, HELD = "steady", "has a held version"
SETTINGS = {
    "MODELMUX_DEPLOYMENT": "shared",
    "MODELMUX_LOAD_RETRY_S": "1",
    "MODELMUX_POLL_INTERVAL_S": "0.5",
}


class Registry(RestartableMlflow):
    """A registry with models that multiply."""

    def add(self, name: str, *, factor: int = 2, inputs: Any = NUMBER) -> int:
        return register(self.uri, name, _times(factor), inputs, inputs)


def _times(factor: int) -> Predict:
    return lambda rows, params: rows * factor


def _asks_for_page(request: str) -> bool:
    return "registered-models/search" in request or "model-versions/search" in request


def _asks_for_later_page(request: str) -> bool:
    return _asks_for_page(request) and "page_token=" in request


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    registry = Registry(tmp_path_factory.mktemp("registry"))
    registry.start()
    registry.add(STEADY)
    registry.add(HELD)
    yield registry
    registry.stop()


@pytest.fixture(scope="module")
def proxy(registry: Registry) -> Iterator[FaultyProxy]:
    with faulty_proxy(registry.uri) as proxy:
        yield proxy


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

    def __init__(self, proxy: FaultyProxy, folder: Path, state: Path) -> None:
        self._proxy, self._folder, self.state = proxy, folder, state
        self._running = ExitStack()

    def start(self) -> None:
        self.gateway = self._running.enter_context(
            gateway(
                self._proxy.url, self._folder, "--state-dir", str(self.state), environment=SETTINGS
            )
        )

    def stop(self) -> None:
        """By SIGTERM: nothing stays, and nothing was said but by the command and our loggers."""
        assert end(self.gateway.process) == 0
        assert leaves_nothing(self.gateway)
        self._running.close()
        assert self.gateway.log.read_text().endswith("Stopped.\n")

    def close(self) -> None:
        """End it, if it still runs."""
        self._running.close()


def leaves_nothing(ended: Gateway) -> bool:
    """Whether no process stays, and only the command and our loggers have said anything."""
    poll(lambda: not descendants_of(ended.process.pid), timeout_s=20, what="every process's end")
    return not_ours(ended.log.read_text()) == []


@pytest.fixture(scope="module")
def restartable(
    registry: Registry, proxy: FaultyProxy, disk: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RestartableGateway]:
    made = RestartableGateway(proxy, tmp_path_factory.mktemp("gateway"), disk / "state")
    made.start()
    assert made.gateway.predict(HELD, {"x": 1}).status_code == 200
    registry.add(HELD, inputs=TEXT)
    made.gateway.sync()
    assert made.gateway.model(HELD)["held"]["version"] == 2
    yield made
    made.close()


@pytest.fixture
def served(restartable: RestartableGateway) -> Gateway:
    """The gateway that runs now."""
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
        assert "can't be saved" in served.log.read_text()
        refused = served.predict(name, {"x": 1})
        assert (refused.status_code, refused.json()["code"]) == (503, "model_unavailable")
        assert int(refused.headers["Retry-After"]) >= 1
        load.wait_for_answers(20)
        assert served.client.get("/readyz").status_code == 200
    poll(lambda: snapshot_problems(served) == {None}, what="the snapshot")
    assert name in (state / "catalog.json").read_text()
    poll(lambda: served.predict(name, {"x": 1}).status_code == 200, what="the new model")
    nothing_failed(load, f"disk: {name}")


def test_a_restart_without_the_registry_serves_what_was_served(
    registry: Registry, restartable: RestartableGateway
) -> None:
    """Models, contract and what is held come from the snapshot, artifacts from the disk."""
    before = restartable.gateway
    contract, held = before.model(STEADY)["request_schema"], before.model(HELD)["held"]
    restartable.stop()
    registry.stop()
    try:
        restartable.start()
        again = restartable.gateway
        ask = Ask(model=STEADY, version=1, answer=lambda n: [{"x": float(n * 2)}])
        with steady_load(again.url, ask, callers=4, pause_s=0.2) as load:
            load.wait_for_answers(20)
        assert load.figures.failed == 0
        _logger.info("up without MLflow: %s", load.figures)
        assert again.model(STEADY)["request_schema"] == contract
        assert again.model(HELD)["held"] == held
        assert again.predict(HELD, {"x": 1}).json() == [{"x": 2.0}]
        poll(lambda: registry_as_told(again)["problem"], what="the silence told")
    finally:
        registry.start()


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


def test_a_gateway_whose_ray_is_gone_says_so_and_ends(restartable: RestartableGateway) -> None:
    """Nothing can be served without it. The last one of this module: the gateway is gone."""
    served = restartable.gateway
    kill_one(served, "src/ray/raylet/raylet ")
    assert served.process.wait(60) == 2
    told = served.log.read_text()
    assert "Ray's raylet has ended, and nothing can be served without it" in told
    assert leaves_nothing(served)
    assert "Ray's processes log to " in (restartable.state / "ray.log").read_text()
