"""What callers see when MLflow is slow, broken, half-way or away, and after a restart meanwhile.

The gateway reads the registry through a real proxy that does harm to chosen requests.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from registry_sync import source
from registry_sync.records import RegistryUnreachable
from registry_sync.source import MlflowRegistry
from tests.support.faulty_proxy import FaultyProxy, Harm, faulty_proxy
from tests.support.processes import Gateway, RestartableMlflow, end, gateway, poll
from tests.support.registering import Predict, columns, register
from tests.support.steady_load import Ask, SteadyLoad, steady_load

_logger = logging.getLogger(__name__)

NUMBER = columns(("x", "double"))
TEXT = columns(("x", "string"))
STEADY, HELD = "steady", "has a held version"


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


class RestartableGateway:
    """A gateway that knows the registry by its proxy, and is started again over its state."""

    def __init__(self, proxy: FaultyProxy, folder: Path) -> None:
        self._proxy, self._folder = proxy, folder
        self._running = ExitStack()

    def start(self) -> None:
        self.gateway = self._running.enter_context(
            gateway(self._proxy.url, self._folder, "--poll-interval-s", "0.5")
        )

    def stop(self) -> None:
        assert end(self.gateway.process) == 0
        self._running.close()


@pytest.fixture(scope="module")
def restartable(
    registry: Registry, proxy: FaultyProxy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RestartableGateway]:
    made = RestartableGateway(proxy, tmp_path_factory.mktemp("gateway"))
    made.start()
    assert made.gateway.predict(HELD, {"x": 1}).status_code == 200
    registry.add(HELD, inputs=TEXT)
    made.gateway.sync()
    assert made.gateway.model(HELD)["held"]["version"] == 2
    yield made
    made.stop()


@pytest.fixture
def served(restartable: RestartableGateway) -> Gateway:
    """The gateway that runs now."""
    return restartable.gateway


@pytest.fixture
def load(served: Gateway) -> Iterator[SteadyLoad]:
    """Callers of a model that is loaded."""
    ask = Ask(model=STEADY, version=1, answer=lambda n: [{"x": float(n * 2)}])
    with steady_load(served.url, ask) as load:
        load.wait_for_answers(20)
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
    """Each of its answers takes seconds: what is new comes later, and nobody waits for it."""
    proxy.delay_s = 3.0
    with proxy.harm("delay", where=lambda request: True):
        registry.add("late")
        poll(lambda: "late" in names(served), timeout_s=150, what="the new model")
    nothing_failed(load, "registry: 3 s for each answer")


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
        load.wait_for_answers(50)
        assert served.client.get("/readyz").status_code == 200
    finally:
        registry.start()
    registry.add("after its return")
    poll(lambda: "after its return" in names(served), timeout_s=90, what="its return")
    assert registry_as_told(served) == {
        "silent_since": None, "problem": None, "snapshot_problem": None,
    }  # fmt: skip
    nothing_failed(load, "MLflow stopped")


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
        with steady_load(again.url, ask) as load:
            load.wait_for_answers(50)
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
