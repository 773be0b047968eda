"""A version is loaded in every replica and asked once before it takes over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deployments.serve.ports import CallLost, Loss
from deployments.sync import version_preparer
from deployments.sync.activator import Activator
from deployments.sync.version_preparer import ReplicaVersionPreparer
from gateway.catalog import ModelVersion, ServedModel
from registry_sync.synchronizer import PreparationFailed
from tests.support.catalogs import served, version
from tests.support.clocks import Clock
from tests.support.fake_serve import FakeReplicas, FakeServe, answered

OK = answered()
TROUBLE = {"retry_after_s": 30.0, "reason": "ModuleNotFoundError: No module named 'skops'"}


def losing(loss: Loss) -> Callable[..., Any]:
    def lose(*_: Any) -> Any:
        raise CallLost(loss)

    return lose


def preparer(replicas: FakeReplicas) -> ReplicaVersionPreparer:
    clock = Clock()
    activator = Activator(FakeServe(), lambda model: model, clock=clock, sleep=clock.sleep)
    return ReplicaVersionPreparer(activator, lambda _: replicas, wake_timeout_s=30.0)


async def prepared(replicas: FakeReplicas, new: ModelVersion) -> None:
    model: ServedModel = served(version(1), new, default=1)
    await preparer(replicas).prepare(model, new)


async def test_each_replica_loads_it_and_one_is_asked() -> None:
    """So that no caller has to wait for its first answer."""
    replicas = FakeReplicas(3, load=lambda *_: ("ok", None), call=lambda *_: OK)
    await prepared(replicas, version(2))
    assert replicas.calls == {"load": 3, "call": 1}


@pytest.mark.parametrize(
    ("load", "call", "told"),
    [
        (lambda *_: ("load_failed", TROUBLE), lambda *_: OK, "can't be loaded: .*skops"),
        (lambda *_: ("suspended", TROUBLE), lambda *_: OK, "skops"),
        (lambda *_: ("ok", None), lambda *_: ("load_failed", TROUBLE), "can't be loaded: .*skops"),
        (lambda *_: ("ok", None), lambda *_: ("suspended", TROUBLE), "skops"),
        (losing(Loss.INSIDE), lambda *_: OK, "went away"),
        (lambda *_: ("ok", None), losing(Loss.FAILED), "went away"),
    ],
)
async def test_what_cannot_answer_does_not_take_over(
    load: Callable[..., Any], call: Callable[..., Any], told: str
) -> None:
    """It can't be loaded, or its process doesn't live through it: the reason is for people."""
    with pytest.raises(PreparationFailed, match=told):
        await prepared(FakeReplicas(2, load=load, call=call), version(2))


async def test_what_is_loaded_ahead_is_asked_nothing() -> None:
    """It doesn't take over from another one, and an answer may have effects elsewhere."""
    replicas = FakeReplicas(2, load=lambda *_: ("ok", None), call=lambda *_: OK)
    await preparer(replicas).load(served(version(1)), version(1))
    assert replicas.calls == {"load": 2}
    failing = FakeReplicas(load=lambda *_: ("load_failed", TROUBLE))
    with pytest.raises(PreparationFailed, match="skops"):
        await preparer(failing).load(served(version(1)), version(1))


async def test_only_an_example_of_its_own_must_be_answered() -> None:
    """A question that was made up may not suit the model."""
    failing = FakeReplicas(load=lambda *_: ("ok", None), call=lambda *_: answered("model_failed"))
    await prepared(failing, version(2))
    with pytest.raises(PreparationFailed, match="its own input example"):
        await prepared(failing, version(2, example={"x": 1.0}))


async def test_a_build_on_another_node_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The replica there says so until it has loaded the version."""
    monkeypatch.setattr(version_preparer, "_LOOK_AGAIN_S", 0.0)
    building = ("building", {"retry_after_s": 5.0, "reason": "its environment is being built"})
    outcomes = [("ok", None), building, building]
    replicas = FakeReplicas(load=lambda *_: outcomes.pop(), call=lambda *_: OK)
    await prepared(replicas, version(2))
    assert replicas.calls == {"load": 3, "call": 1}


async def test_a_model_that_sleeps_is_woken_for_it() -> None:
    """No replica is there to be told: a call of one starts it, and then each has to load it."""
    left = [CallLost(Loss.NO_APPLICATION)]

    class Sleeping(FakeReplicas):
        async def broadcast(self, method: str, *arguments: Any) -> list[Any]:
            if left:
                raise left.pop()
            return await super().broadcast(method, *arguments)

    replicas = Sleeping(2, load=lambda *_: ("ok", None), call=lambda *_: OK)
    await prepared(replicas, version(2))
    assert replicas.calls == {"load": 3, "call": 1}
