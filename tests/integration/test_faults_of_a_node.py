"""What callers see when a node of a cluster is lost: all of its processes are killed at once."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.processes_of import command_of, processes_of
from tests.harm import MODEL
from tests.processes import descendants_of, end, free_port, gateway, poll, running
from tests.registering import client, columns, register
from tests.steady_load import Ask, steady_load

_logger = logging.getLogger(__name__)

NUMBER = columns(("x", "double"))
CALLERS = 8
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}


class Node:
    """A node of a local cluster: everything that `ray start` started."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def has(self, title: str) -> bool:
        return any(title in command for command in descendants_of(self.process.pid))

    def lose(self) -> None:
        for each in processes_of(self.process.pid):
            if command_of(each):
                os.kill(each, signal.SIGKILL)


class Cluster:
    """A local Ray cluster that grows: a head without processors, and nodes of one each."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._folder = folder
        self._stack = stack
        self._log = folder / "ray.log"
        port = self.address.rpartition(":")[2]
        self._start("--head", "--port", port, "--include-dashboard", "false", "--num-cpus", "0")

    def add_node(self) -> Node:
        return self._start("--address", self.address, "--num-cpus", "1")

    def _start(self, *options: str) -> Node:
        started = self._started
        command = [
            str(Path(sys.executable).with_name("ray")), "start", "--block", *options,
            "--node-ip-address", "127.0.0.1", "--object-store-memory", "200000000",
            "--disable-usage-stats",
        ]  # fmt: skip
        if "--head" in options:
            command += ["--temp-dir", str(self._folder)]
        process = self._stack.enter_context(running(command, log=self._log, environment=TOKEN))
        poll(lambda: self._started > started, timeout_s=60, what="the node")
        return Node(process)

    @property
    def _started(self) -> int:
        return self._log.read_text().count("Ray runtime started") if self._log.exists() else 0


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    # Ray's sockets don't fit into pytest's long folder names.
    with (
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder,
        ExitStack() as stack,
    ):
        yield Cluster(Path(folder), stack)


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
            poll(lambda: other.has(MODEL), timeout_s=60, what="the replica on the other node")
            load.wait_for_answers(20)
        _logger.info("node lost: %s", load.figures)
        assert (load.figures.wrong, load.figures.hung) == ([], 0)
        assert load.figures.failed <= CALLERS
        for failure in load.figures.failures:
            assert failure.at - failure.waited_s <= lost_at + 0.1, f"sent afterwards: {failure}"
        assert end(served.process) == 0
