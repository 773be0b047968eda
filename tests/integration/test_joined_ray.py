"""`modelmux up` on a Ray cluster that runs already."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.processes import end, gateway
from tests.support.ray_clusters import ray_cluster
from tests.support.registering import columns, register

NUMBER = columns(("x", "double"))


def test_a_cluster_is_joined_and_left_as_it_was(mlflow_uri: str, tmp_path: Path) -> None:
    """The gateway serves on a cluster of somebody else, and takes only its own away again."""
    name = "on a cluster"
    register(mlflow_uri, name, lambda rows, params: rows, NUMBER, NUMBER)
    with ray_cluster(num_cpus=1) as cluster:
        options = ("--ray-address", cluster.address, "--include", name)
        with gateway(mlflow_uri, tmp_path, *options, environment=cluster.environment) as joined:
            assert joined.predict(name, {"x": 1}).json() == [{"x": 1.0}]
            assert end(joined.process) == 0
        with pytest.raises(httpx.HTTPStatusError):
            httpx.get(f"{joined.url}/healthz").raise_for_status()
        assert cluster.head.process.poll() is None


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
