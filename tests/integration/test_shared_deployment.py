"""Models that share a deployment, on a real Ray: what one of them does is none of the others'. How
they share its memory is in `test_overload` and `test_memory_of_a_shared_replica`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from tests.support.harm import MODEL, SHARED, kill_one, processes_called, wait_for_another
from tests.support.processes import Gateway, poll
from tests.support.registering import client, columns, register
from tests.support.steady_load import Ask, steady_load

NUMBER = columns(("x", "double"))
STEADY, OTHER, HANGS, FLOODED, MOVES = (
    f"shared-{name}" for name in ("steady", "other", "hangs", "flooded", "moves")
)
TIMEOUT_S = 2.0


def times(factor: int) -> Callable[..., Any]:
    def predict(rows: pd.DataFrame, params: Any) -> Any:
        return rows * factor

    return predict


def hangs(rows: pd.DataFrame, params: Any) -> Any:
    import time

    if rows["x"].iloc[0] < 0:
        time.sleep(600)
    return rows


def slow(rows: pd.DataFrame, params: Any) -> Any:
    import time

    time.sleep(0.2)
    return rows


def product(model: str, factor: int) -> Ask:
    """Ask that model, of which the answer is known."""
    return Ask(model=model, answer=lambda n: [{"x": float(n * factor)}])


@pytest.fixture(scope="module")
def served(mlflow_uri: str, shared_gateway: Gateway) -> Gateway:
    """The session's gateway, whose models share a deployment, with some more."""
    register(mlflow_uri, STEADY, times(2), NUMBER, NUMBER)
    register(mlflow_uri, OTHER, times(3), NUMBER, NUMBER)
    register(mlflow_uri, HANGS, hangs, NUMBER, NUMBER)
    register(mlflow_uri, FLOODED, slow, NUMBER, NUMBER)
    register(mlflow_uri, MOVES, times(5), NUMBER, NUMBER)
    client(mlflow_uri).set_registered_model_tag(HANGS, "modelmux.timeout_s", str(TIMEOUT_S))
    shared_gateway.sync()
    return shared_gateway


def own(served: Gateway, model: str = "shared-") -> list[int]:
    """The processes of replicas of the model's own, or of any of these models'."""
    return processes_called(served, f"{MODEL}{model}")


def answer(served: Gateway, model: str, **body: float) -> Any:
    response = served.predict(model, body)
    assert response.status_code == 200, response.text
    return response.json()


def test_models_are_answered_by_one_replica(served: Gateway) -> None:
    """It is there before anybody asks, and no model has a replica of its own."""
    poll(lambda: processes_called(served, SHARED), what="the shared deployment's replica")
    assert answer(served, STEADY, x=2) == [{"x": 4.0}]
    assert answer(served, OTHER, x=2) == [{"x": 6.0}]
    assert len(processes_called(served, SHARED)) == 1
    assert own(served) == []


def test_a_hang_and_a_flood_are_their_own_model_s(served: Gateway) -> None:
    """Neighbours in the same replica are answered meanwhile, as quickly as ever."""
    answer(served, HANGS, x=1)
    with (
        steady_load(served.url, product(STEADY, 2), product(OTHER, 3), callers=2) as load,
        steady_load(served.url, product(FLOODED, 1), callers=64, pause_s=0.0),
    ):
        load.wait_for_answers(10)
        response = served.predict(HANGS, {"x": -1})
        assert response.status_code == 504, response.text
        poll(lambda: served.predict(HANGS, {"x": 1}).status_code == 200, what="a new process")
        load.wait_for_answers(10)
        figures = load.stop()
    assert (figures.failed, figures.wrong) == (0, []), str(figures)
    assert figures.longest_wait_s < TIMEOUT_S, str(figures)


def test_a_replica_that_is_killed_is_replaced_without_an_error(served: Gateway) -> None:
    """All models in it wait for the next one, and nobody hears of it."""
    with steady_load(served.url, product(STEADY, 2), product(OTHER, 3), callers=4) as load:
        load.wait_for_answers(5)
        victim = kill_one(served, SHARED)
        wait_for_another(served, SHARED, count=1, besides=victim)
        load.wait_for_answers(5)
        figures = load.stop()
    assert (figures.failed, figures.wrong) == (0, []), str(figures)


def test_a_model_that_moves_by_its_tag_fails_no_request(served: Gateway, mlflow_uri: str) -> None:
    """Out of the shared deployment into one of its own, and back again."""
    registry = client(mlflow_uri)
    with steady_load(served.url, product(MOVES, 5), callers=4) as load:
        load.wait_for_answers(5)
        registry.set_registered_model_tag(MOVES, "modelmux.deployment", "own")
        served.sync()
        poll(lambda: own(served, MOVES), timeout_s=120, what="a replica of its own")
        load.wait_for_answers(50)
        registry.set_registered_model_tag(MOVES, "modelmux.deployment", "shared")
        served.sync()
        poll(lambda: not own(served, MOVES), timeout_s=120, what="the end of its own replica")
        load.wait_for_answers(50)
        figures = load.stop()
    assert (figures.failed, figures.wrong) == (0, []), str(figures)


def test_a_tag_that_needs_a_deployment_of_its_own_wins(served: Gateway, mlflow_uri: str) -> None:
    """And beside one that asks for the shared one people are told."""
    registry = client(mlflow_uri)
    registry.set_registered_model_tag(OTHER, "modelmux.deployment", "shared")
    registry.set_registered_model_tag(OTHER, "modelmux.max_replicas", "2")
    served.sync()
    assert any("has no effect" in warning for warning in served.model(OTHER)["warnings"])

    def has_its_own() -> bool:
        assert answer(served, OTHER, x=1) == [{"x": 3.0}]
        return bool(own(served, OTHER))

    poll(has_its_own, timeout_s=120, what="a replica of its own")
    registry.delete_registered_model_tag(OTHER, "modelmux.max_replicas")
    served.sync()
    assert served.model(OTHER)["warnings"] == []
