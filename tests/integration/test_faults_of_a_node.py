"""What callers see when a node of a cluster is lost: all of its processes are killed at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harm import MODEL
from tests.support.processes import end, gateway, poll
from tests.support.ray_clusters import TOKEN, Cluster, ray_cluster
from tests.support.registering import client, columns, register
from tests.support.steady_load import Ask, steady_load

_logger = logging.getLogger(__name__)

NUMBER = columns(("x", "double"))
CALLERS = 8


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with ray_cluster() as made:
        yield made


def test_what_was_on_a_lost_node_comes_back_elsewhere(
    mlflow_uri: str, cluster: Cluster, tmp_path: Path
) -> None:
    """The model's only replica comes back on the other node, and whoever asks for it waits; only
    what was inside the lost node's own proxy fails."""
    name = "on one of two nodes"
    register(mlflow_uri, name, lambda rows, params: rows * 2, NUMBER, NUMBER)
    client(mlflow_uri).set_registered_model_tag(name, "modelmux.num_cpus", "1")
    ask = Ask(model=name, version=1, answer=lambda n: [{"x": float(n * 2)}])
    options = ("--ray-address", cluster.address, "--include", name)
    with gateway(mlflow_uri, tmp_path, *options, environment=TOKEN) as served:
        nodes = [cluster.add_node(), cluster.add_node()]
        with steady_load(served.url, ask, callers=CALLERS) as load:
            load.wait_for_answers(20, timeout_s=90)
            load.reset()
            [lost] = [node for node in nodes if node.has(MODEL)]
            [other] = [node for node in nodes if node is not lost]
            lost.lose()
            lost_at = time.monotonic()
            poll(lambda: other.has(MODEL), timeout_s=150, what="the replica on the other node")
            load.wait_for_answers(20)
        _logger.info("node lost: %s", load.figures)
        assert (load.figures.wrong, load.figures.hung) == ([], 0)
        assert load.figures.failed <= CALLERS
        for failure in load.figures.failures:
            assert failure.at - failure.waited_s <= lost_at + 0.1, f"sent afterwards: {failure}"
        assert end(served.process) == 0
