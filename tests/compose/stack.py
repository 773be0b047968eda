"""The composed stack as people run it: by the command, and from outside by its published ports."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import httpx

from tests.support.processes import free_port, poll

ROOT = Path(__file__).parents[2]
_PROJECT = "modelmux-compose-test"
_START_S = 180.0


class Stack:
    """A project of docker-compose with ports and volumes of its own.

    The gateway polls so rarely that what is seen soon was told by a webhook.
    """

    def __init__(self, command: list[str], folder: Path) -> None:
        ports = {"MODELMUX_PORT": free_port(), "MLFLOW_PUBLISHED_PORT": free_port()}
        self.url = f"http://127.0.0.1:{ports['MODELMUX_PORT']}"
        self.mlflow_uri = f"http://127.0.0.1:{ports['MLFLOW_PUBLISHED_PORT']}"
        # Nothing of what the developer has set for a stack of their own.
        nothing = folder / "env"
        nothing.touch()
        self._command = [*command, "--project-name", _PROJECT, "--env-file", str(nothing)]
        self.environment = {
            "MODELMUX_POLL_INTERVAL_S": "600",
            "MODEL_PACKAGES": "scikit-learn skops",
            "GATEWAY_IMAGE": "modelmux-gateway-test",
            **{name: str(port) for name, port in ports.items()},
        }
        self.client = httpx.Client(base_url=self.url, timeout=90.0)

    def compose(self, *arguments: str, expect: int = 0) -> str:
        """Run the command; what it wrote."""
        done = subprocess.run(
            [*self._command, *arguments],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        wrote = done.stdout + done.stderr
        assert done.returncode == expect, f"{arguments}: {done.returncode}\n{wrote[-6000:]}"
        return wrote

    def up(self) -> None:
        """Bring it up, and wait until MLflow knows its webhook."""
        self.compose("up", "--detach", "--no-build")
        poll(
            lambda: self.inspect("webhook")["State"]["Status"] == "exited",
            timeout_s=_START_S,
            what="the webhook's job",
        )
        exit_code = self.inspect("webhook")["State"]["ExitCode"]
        assert exit_code == 0, self.compose("logs", "webhook", "mlflow")
        self.wait_for_gateway()

    def wait_for_gateway(self) -> None:
        """Until the gateway has a catalog."""
        poll(self._is_ready, timeout_s=_START_S, what="the gateway")

    def _is_ready(self) -> bool:
        try:
            return self.client.get("/readyz").is_success
        except httpx.HTTPError:
            return False

    def wait_for_mlflow(self) -> None:
        """Until MLflow answers on its published port."""

        def answers() -> bool:
            try:
                return httpx.get(f"{self.mlflow_uri}/health", timeout=5.0).is_success
            except httpx.HTTPError:
                return False

        poll(answers, timeout_s=_START_S, what="MLflow")

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine says of a service's container."""
        done = subprocess.run(
            ["docker", "inspect", self.container(service)],
            capture_output=True,
            text=True,
            check=True,
        )
        (found,) = json.loads(done.stdout)
        return dict(found)

    def container(self, service: str) -> str:
        """The id of a service's container, whether it runs or has ended."""
        labels = {"project": _PROJECT, "service": service}
        filters = [f"--filter=label=com.docker.compose.{k}={v}" for k, v in labels.items()]
        done = subprocess.run(
            [
                "docker",
                "ps",
                "--all",
                "--quiet",
                *filters,
                "--filter=label=com.docker.compose.oneoff=False",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        (found,) = done.stdout.split()
        return found

    def execute(self, service: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside of a service's container."""
        return subprocess.run(
            ["docker", "exec", self.container(service), *command],
            capture_output=True,
            text=True,
            check=False,
        )

    def model(self, name: str) -> dict[str, Any] | None:
        """What the gateway tells of a model, None where it knows none of that name."""
        response = self.client.get(f"/models/{name}")
        if response.status_code == 404:
            return None
        response.raise_for_status()
        return dict(response.json())

    def ask(self, name: str, row: dict[str, Any], **headers: str) -> httpx.Response:
        """What comes back for one row."""
        return self.client.post(f"/models/{name}/predict", json=row, headers=headers)

    def predict(self, name: str, **headers: str) -> Any:
        """The model's answer for one row with x = 10."""
        response = self.ask(name, {"x": 10.0}, **headers)
        assert response.status_code == 200, response.text
        return response.json()
