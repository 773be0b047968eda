"""A real Prometheus for the tests, with the configuration that the project ships."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml

from tests.support.processes import free_port, running, wait_for_http

DEPLOY = Path(__file__).parents[2] / "deploy"
CONFIGURATION = DEPLOY / "prometheus" / "prometheus.yml"
RULES = DEPLOY / "prometheus" / "rules" / "alerts.yml"
RULE_TESTS = DEPLOY / "prometheus" / "tests" / "alerts.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "gateway.json"


class Prometheus:
    """A running server, and what it is asked."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=f"{url}/api/v1", timeout=30.0)

    def close(self) -> None:
        """Let go of its connections."""
        self._client.close()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query."""
        found: list[dict[str, Any]] = self._ask("/query", query=expression)["result"]
        return found

    def names(self) -> set[str]:
        """The names of all metrics."""
        return set(self._ask("/label/__name__/values"))

    def targets(self, job: str) -> list[dict[str, Any]]:
        """The active targets of a job: health, and the last error."""
        active = self._ask("/targets")["activeTargets"]
        return [target for target in active if target["labels"]["job"] == job]

    def _ask(self, path: str, **params: str) -> Any:
        answer = self._client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


@contextmanager
def prometheus(folder: Path, gateway_url: str) -> Iterator[Prometheus]:
    """The shipped configuration with the gateway's address for `gateway:8000`, read each second."""
    port = free_port()
    configuration = yaml.safe_load(CONFIGURATION.read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(RULES)]
    for job in configuration["scrape_configs"]:
        for group in job["static_configs"]:
            group["targets"] = [
                {"gateway:8000": urlsplit(gateway_url).netloc}.get(target, f"127.0.0.1:{port}")
                for target in group["targets"]
            ]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(configuration))
    command = [
        "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    log = folder / "prometheus.log"
    with running(command, log=log) as process:
        url = f"http://127.0.0.1:{port}"
        wait_for_http(f"{url}/-/ready", process, log)
        server = Prometheus(url)
        yield server
        server.close()
