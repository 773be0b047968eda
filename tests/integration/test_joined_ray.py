"""`modelmux up` on a Ray cluster that runs already."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.processes import Gateway, end, gateway
from tests.support.ray_clusters import Cluster, ray_cluster
from tests.support.registering import columns, register

NUMBER = columns(("x", "double"))


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A cluster of somebody else, where Serve is behind Ray's own proxy: with an HAProxy of ours it
    is in `test_shared_cluster`."""
    with ray_cluster(num_cpus=1, environment={"RAY_SERVE_ENABLE_HA_PROXY": "0"}) as made:
        yield made


async def test_a_cluster_is_joined_and_left_as_it_was(
    mlflow_uri: str, cluster: Cluster, tmp_path: Path
) -> None:
    """The gateway serves on it, and takes only its own away again. By that proxy Ray hears of
    callers who leave: of four first callers of a sleeping model the first one leaves while it
    starts, and the other three are answered."""
    names = ["on a cluster", "on a cluster, too"]  # it failed in four of five tries
    for name in names:
        register(mlflow_uri, name, lambda rows, params: rows, NUMBER, NUMBER)
    options = ("--ray-address", cluster.address, "--include", "on a cluster*")
    with gateway(mlflow_uri, tmp_path, *options, environment=cluster.environment) as joined:
        for name in names:
            first, *others = await asyncio.gather(
                _ask(joined, name, after_s=0.0, patience_s=1.0),
                *(_ask(joined, name, after_s=0.1 * n, patience_s=90.0) for n in (1, 2, 3)),
            )
            assert first == "left"
            assert others == [(200, '[{"x":1.0}]')] * 3
        assert await asyncio.to_thread(end, joined.process) == 0
    async with httpx.AsyncClient() as caller:
        assert (await caller.get(f"{joined.url}/healthz")).is_error
    assert cluster.head.process.poll() is None


async def _ask(gateway: Gateway, name: str, *, after_s: float, patience_s: float) -> object:
    await asyncio.sleep(after_s)
    async with httpx.AsyncClient(base_url=gateway.url, timeout=patience_s) as caller:
        try:
            response = await caller.post(f"/models/{name}/predict", json={"x": 1})
        except httpx.TimeoutException:
            return "left"
        return response.status_code, response.text


def test_a_ray_that_is_found_and_does_not_answer_is_one_line() -> None:
    """The same where Ray itself finds the address, such as that of a gateway's own on this machine,
    which listens on the loopback alone."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("modelmux")), "down"],
        env={**os.environ, "RAY_ADDRESS": "127.0.0.1:9"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("modelmux: no Ray cluster answers at auto; ")
    assert "Traceback" not in done.stderr


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
