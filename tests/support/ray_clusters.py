"""A local Ray cluster for the tests: real nodes, each `ray start` in a session of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.support.processes import descendants_of, free_port, poll, running
from tests.support.processes_of import command_of, processes_of

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
"""What the cluster's processes ask each other for, and whoever joins them."""


class Node:
    """A node of a local cluster: everything that `ray start` started."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def has(self, title: str) -> bool:
        """Whether one of its processes has that in its title."""
        return any(title in command for command in descendants_of(self.process.pid))

    def lose(self) -> None:
        """Kill all of its processes at once."""
        for each in processes_of(self.process.pid):
            if command_of(each):
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)


class Cluster:
    """A local Ray cluster that grows: a head, which may be without processors, and nodes."""

    def __init__(
        self,
        folder: Path,
        stack: ExitStack,
        *,
        num_cpus: int,
        dashboard: bool,
        environment: Mapping[str, str],
    ) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.dashboard = f"http://127.0.0.1:{free_port()}"
        self.environment = {**TOKEN, **environment}
        self._folder = folder
        self._stack = stack
        self._log = folder / "ray.log"
        port, dashboard_port = (url.rpartition(":")[2] for url in (self.address, self.dashboard))
        self.head = self._start(
            "--head", "--port", port, "--num-cpus", str(num_cpus), "--temp-dir", str(folder),
            "--include-dashboard", str(dashboard).lower(), "--dashboard-port", dashboard_port,
        )  # fmt: skip

    def add_node(self, *, num_cpus: int = 1, num_gpus: int = 0) -> Node:
        """One more node; GPUs are what Ray is told, whether they are there or not."""
        return self._start(
            "--address", self.address, "--num-cpus", str(num_cpus), "--num-gpus", str(num_gpus)
        )

    def _start(self, *options: str) -> Node:
        started = self._started
        command = [
            str(Path(sys.executable).with_name("ray")), "start", "--block", *options,
            "--node-ip-address", "127.0.0.1", "--object-store-memory", "200000000",
            "--disable-usage-stats",
        ]  # fmt: skip
        process = self._stack.enter_context(
            running(command, log=self._log, environment=self.environment)
        )
        node = Node(process)
        self._stack.callback(node.lose)  # asked to end, each takes ten seconds

        def has_started() -> bool:
            assert process.poll() is None, self._log.read_text()[-4000:]
            return self._started > started

        poll(has_started, timeout_s=200, what="the node")
        return node

    @property
    def _started(self) -> int:
        return self._log.read_text().count("Ray runtime started") if self._log.exists() else 0


@contextmanager
def ray_cluster(
    *,
    num_cpus: int = 0,
    dashboard: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Cluster]:
    """A cluster of a head alone, which ends with everything that was added to it."""
    # Ray's sockets don't fit into pytest's long folder names.
    with (
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder,
        ExitStack() as stack,
    ):
        yield Cluster(
            Path(folder),
            stack,
            num_cpus=num_cpus,
            dashboard=dashboard,
            environment=environment or {},
        )
