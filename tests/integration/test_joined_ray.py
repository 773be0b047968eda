"""`modelmux up` on a Ray cluster that runs already."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.processes import end, free_port, gateway, poll, running
from tests.registering import columns, register

NUMBER = columns(("x", "double"))


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Ray's sockets don't fit into pytest's long folder names."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def test_a_cluster_is_joined_and_left_as_it_was(
    mlflow_uri: str, tmp_path: Path, short_folder: Path
) -> None:
    """The gateway serves on a cluster of somebody else, and takes only its own away again."""
    name = "on a cluster"
    register(mlflow_uri, name, lambda rows, params: rows, NUMBER, NUMBER)
    address = f"127.0.0.1:{free_port()}"
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block",
        "--node-ip-address", "127.0.0.1", "--port", address.rpartition(":")[2],
        "--include-dashboard", "false", "--num-cpus", "1", "--disable-usage-stats",
        "--object-store-memory", "200000000", "--temp-dir", str(short_folder),
    ]  # fmt: skip
    log = tmp_path / "ray.log"
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
    with running(command, log=log, environment=token) as cluster:
        poll(lambda: "Ray runtime started" in log.read_text(), timeout_s=200, what="the cluster")
        options = ("--ray-address", address, "--include", name)
        with gateway(mlflow_uri, tmp_path, *options, environment=token) as joined:
            assert joined.predict(name, {"x": 1}).json() == [{"x": 1.0}]
            assert end(joined.process) == 0
        with pytest.raises(httpx.HTTPStatusError):
            httpx.get(f"{joined.url}/healthz").raise_for_status()
        assert cluster.poll() is None


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """Exit code 2 at once, where Ray would go on trying for minutes."""
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("modelmux")), "up", "--ray-address", "127.0.0.1:9",
            "--tracking-uri", "http://127.0.0.1:9", "--state-dir", str(tmp_path),
        ],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no Ray cluster answers at 127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr
