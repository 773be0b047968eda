"""The gateway on a Ray cluster that it shares: by a Serve config, and by `up`; a node is lost."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deployments.cluster.ray_environment import cluster_environment
from tests.support.harm import MODEL
from tests.support.processes import Gateway, free_port, gateway, poll
from tests.support.ray_clusters import TOKEN, Cluster, ray_cluster
from tests.support.registering import client, columns, register
from tests.support.steady_load import Ask, steady_load

_logger = logging.getLogger(__name__)

NUMBER = columns(("x", "double"))
CONFIG = Path(__file__).parents[2] / "deploy" / "serve" / "modelmux.yaml"
PREFIX, JOINED = "on a shared cluster", "on one of its nodes"
CALLERS = 8

_THEIRS = """
import sys
import ray
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0})
class Theirs:
    def __call__(self, request):
        return "theirs"

ray.init(address=sys.argv[1])
# Two nodes on one machine can't both have an HAProxy on the same port.
serve.start("HeadOnly", http_options={"host": "0.0.0.0", "port": int(sys.argv[2])})
serve.run(Theirs.bind(), name="theirs", route_prefix="/theirs")
# Called as if it were a model's of ours.
serve.run(Theirs.bind(), name="modelmux-model-zoo", route_prefix="/zoo")
"""
THEIRS = {"theirs", "modelmux-model-zoo"}

_AT_ROOT = """
import sys
import ray
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0})
class Root:
    def __call__(self, request):
        return "root"

ray.init(address=sys.argv[1])
if sys.argv[2] == "run":
    serve.run(Root.bind(), name="root", route_prefix="/")
else:
    serve.delete("root")
"""


@dataclass(frozen=True)
class Shared:
    """A cluster on which Serve runs already, on every address, with applications of somebody
    else."""

    cluster: Cluster
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, *command: str) -> str:
        """A command of the environment, as somebody with the cluster's token runs it."""
        done = self._tried(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refusal(self, *options: str) -> str:
        """The one line with which `up` ends here at once."""
        up = ("up", "--tracking-uri", "http://127.0.0.1:9", "--ray-address", self.cluster.address)
        done = self._tried("modelmux", *up, *options)
        assert done.returncode == 2, done.stdout + done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        return done.stderr

    def _tried(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).with_name(command[0])), *command[1:]],
            env={**os.environ, **self.cluster.environment},
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    def applications(self, **query: str) -> dict[str, Any]:
        """What the cluster's dashboard tells of Serve's applications, as KubeRay asks for it."""
        response = httpx.get(
            f"{self.cluster.dashboard}/api/serve/applications/",
            params=query,
            headers={"Authorization": f"Bearer {TOKEN['RAY_AUTH_TOKEN']}"},
            timeout=30.0,
        )
        response.raise_for_status()
        return dict(response.json()["applications"])

    def theirs_answer(self) -> bool:
        routes = ("/theirs", "/zoo")
        answers = [httpx.get(f"{self.url}{route}", timeout=30.0).text for route in routes]
        return answers == ["theirs", "theirs"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    # Nothing outside of this machine has to learn that a replica is leaving; Ray waits 30 s.
    at_once = {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1"}
    with ray_cluster(dashboard=True, environment=cluster_environment() | at_once) as cluster:
        cluster.add_node(num_gpus=1)
        made = Shared(cluster, free_port())
        script = tmp_path_factory.mktemp("theirs") / "theirs.py"
        script.write_text(_THEIRS)
        made.run("python", str(script), cluster.address, str(made.port))
        yield made


def _model_applications(shared: Shared) -> dict[str, list[str]]:
    """The replicas of the models' applications, by application."""
    return {
        name: sorted(
            replica["replica_id"]
            for deployment in application["deployments"].values()
            for replica in deployment["replicas"]
        )
        for name, application in shared.applications().items()
        if name.startswith("modelmux-model-") and name not in THEIRS
    }


def _predict(url: str, name: str) -> httpx.Response:
    return httpx.post(f"{url}/models/{name}/predict", json={"x": 1}, timeout=90.0)


def test_up_refuses_what_the_serve_that_is_there_does_not_allow(
    shared: Shared, tmp_path: Path
) -> None:
    """Another port than Serve's, an open address without keys, a route that is taken: each ends in
    one line, and deploys nothing."""
    state, port = ("--state-dir", str(tmp_path)), ("--port", str(shared.port))
    assert f"0.0.0.0:{shared.port}" in shared.refusal(*state, "--port", str(free_port()))
    assert "--keys-file" in shared.refusal(*state, *port)
    with _application_at_root(shared, tmp_path):
        assert "application root" in shared.refusal(*state, *port, "--insecure")
    assert set(shared.applications()) == THEIRS
    assert shared.theirs_answer()


@contextmanager
def _application_at_root(shared: Shared, folder: Path) -> Iterator[None]:
    script = folder / "root.py"
    script.write_text(_AT_ROOT)
    shared.run("python", str(script), shared.cluster.address, "run")
    try:
        yield
    finally:
        shared.run("python", str(script), shared.cluster.address, "delete")


def test_a_serve_config_is_deployed_again_and_again(
    mlflow_uri: str, shared: Shared, tmp_path: Path
) -> None:
    """The models' applications outlive a new config, a broken model isn't the service's trouble,
    and a GPU is asked of Ray where the tag says so."""
    good, broken, on_gpu = f"{PREFIX} - good", f"{PREFIX} - broken", f"{PREFIX} - gpu"
    register(mlflow_uri, good, lambda rows, params: rows * 2, NUMBER, NUMBER)
    register(mlflow_uri, broken, lambda rows, params: rows, NUMBER, NUMBER, on_load=_fail)
    register(mlflow_uri, on_gpu, _number_of_gpu, NUMBER, NUMBER)
    client(mlflow_uri).set_registered_model_tag(on_gpu, "modelmux.num_gpus", "1")

    settings = {"tracking_uri": mlflow_uri, "state_dir": str(tmp_path / "state")}
    settings["include"] = f"{PREFIX} - *"
    _deploy(shared, tmp_path, settings)
    assert _predict(shared.url, good).json() == [{"x": 2.0}]
    assert _predict(shared.url, on_gpu).json() == [{"x": 0.0}]
    assert _predict(shared.url, broken).status_code == 503
    before = _model_applications(shared)
    assert len(before) == 3
    asked = [
        deployment["deployment_config"]["ray_actor_options"].get("num_gpus", 0)
        for name, application in shared.applications().items()
        if name in before
        for deployment in application["deployments"].values()
    ]
    assert sorted(asked) == [0, 0, 1]

    _deploy(shared, tmp_path, {**settings, "max_rows": 5})
    poll(lambda: _takes_no_more_than(shared.url, good, 5), what="the new setting")
    assert _predict(shared.url, good).json() == [{"x": 2.0}]
    assert _model_applications(shared)[_named(before, "good")] == before[_named(before, "good")]
    declared = shared.applications(api_type="declarative")
    assert {name: each["status"] for name, each in declared.items()} == {"modelmux": "RUNNING"}

    shared.run("modelmux", "down", "--ray-address", shared.cluster.address)
    assert set(shared.applications()) == THEIRS
    assert shared.theirs_answer()


def _deploy(shared: Shared, folder: Path, settings: dict[str, Any]) -> None:
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    config["http_options"] |= {"host": "0.0.0.0", "port": shared.port}
    config["applications"][0]["args"] |= settings
    written = folder / "config.yaml"
    written.write_text(yaml.safe_dump(config))
    shared.run("serve", "deploy", str(written), "--address", shared.cluster.dashboard)
    poll(lambda: _is_running(shared), timeout_s=90, what="the application")
    poll(lambda: _is_ready(shared.url), timeout_s=150, what="the catalog")


def _is_running(shared: Shared) -> bool:
    found = shared.applications().get("modelmux", {"status": None, "message": ""})
    assert found["status"] != "DEPLOY_FAILED", found["message"]
    return bool(found["status"] == "RUNNING")


def _is_ready(url: str) -> bool:
    return httpx.get(f"{url}/readyz", timeout=30.0).is_success


def _takes_no_more_than(url: str, name: str, rows: int) -> bool:
    body = [{"x": 1}] * (rows + 1)
    return httpx.post(f"{url}/models/{name}/predict", json=body, timeout=30.0).status_code == 413


def _named(applications: dict[str, list[str]], part: str) -> str:
    (found,) = [name for name in applications if part in name]
    return found


def _fail() -> None:
    raise RuntimeError("broken on purpose")


def _number_of_gpu(rows: Any, params: Any) -> Any:
    return rows * 0 + int(os.environ["CUDA_VISIBLE_DEVICES"])


@pytest.fixture(scope="module")
def joined(
    mlflow_uri: str, shared: Shared, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """`up` on the cluster, before it has the nodes on which alone the model has room."""
    register(mlflow_uri, JOINED, lambda rows, params: rows * 3, NUMBER, NUMBER)
    client(mlflow_uri).set_registered_model_tag(JOINED, "modelmux.num_cpus", "2")
    where = ("--ray-address", shared.cluster.address, "--port", str(shared.port), "--insecure")
    with gateway(
        mlflow_uri, tmp_path_factory.mktemp("joined"), *where, "--include", JOINED,
        environment=shared.cluster.environment, wait=False,
    ) as running:  # fmt: skip
        poll(lambda: "Ready: " in running.log.read_text(), timeout_s=90, what="the gateway")
        yield running


def test_what_was_on_a_lost_node_comes_back_elsewhere(shared: Shared, joined: Gateway) -> None:
    """All processes of a node are killed at once: the model's only replica comes back on another
    one, and whoever asks for it waits; only what was inside of that node fails."""
    assert joined.process.poll() is None
    nodes = [shared.cluster.add_node(num_cpus=2) for _ in range(2)]
    ask = Ask(model=JOINED, version=1, answer=lambda n: [{"x": float(n * 3)}])
    with steady_load(shared.url, ask, callers=CALLERS, pause_s=0.2) as load:
        load.wait_for_answers(8, timeout_s=90)
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


def test_down_takes_away_what_a_killed_up_left(
    shared: Shared, joined: Gateway, tmp_path: Path
) -> None:
    """A second `up` is refused while the first lives. Killed without a word, that one leaves the
    gateway serving; `down` takes it and its models away, and nothing else."""
    address = shared.cluster.address
    assert _predict(shared.url, JOINED).json() == [{"x": 3.0}]
    told = shared.refusal("--state-dir", str(tmp_path), "--port", str(shared.port), "--insecure")
    assert f"already, by process {joined.process.pid}" in told
    assert _predict(shared.url, JOINED).json() == [{"x": 3.0}]
    joined.process.send_signal(signal.SIGKILL)
    joined.process.wait(30)
    assert _predict(shared.url, JOINED).json() == [{"x": 3.0}]
    told = shared.run("modelmux", "down", "--ray-address", address)
    assert "2 applications taken down." in told
    assert set(shared.applications()) == THEIRS
    assert shared.theirs_answer()
    again = shared.run("modelmux", "down", "--ray-address", address)
    assert "0 applications taken down." in again
