"""Real processes for the tests: an MLflow server, a gateway; started, awaited, ended by id."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

import httpx

START_TIMEOUT_S = 240.0
STOP_TIMEOUT_S = 60.0
_TICK_S = 0.1
# Below Linux' 32768, where gateways have theirs (`deployments.cluster.port_ranges`), and what `ray
# start` keeps for its workers (10,002 to 19,999: it refuses a head whose own port is one of those).
# Nor what Chromium opens no page of (net/base/port_util.cc, `kRestrictedPorts`).
_RESTRICTED = {2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6679, 6697, *range(6665, 6670)}
_PORTS = sorted({*range(2_000, 9_000)} - _RESTRICTED)


def free_port() -> int:
    """A TCP port on the loopback that nobody uses right now, and that the system gives to no
    client before it is used: it is none of those that it gives away by itself."""
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def poll(
    condition: Callable[[], Any], *, timeout_s: float = 60.0, what: str = "the condition"
) -> Any:
    """The first truthy result of `condition`, asked again until `timeout_s` have passed."""
    deadline = time.monotonic() + timeout_s
    pause = Event()
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {timeout_s:g} s")
        pause.wait(_TICK_S)


@contextmanager
def running(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    terminal: int | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own; on the way out SIGTERM, and SIGKILL for what stays.

    Its output goes to `log`, or to the descriptor of a terminal."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=terminal,
            stdout=output if terminal is None else terminal,
            stderr=output if terminal is None else terminal,
            start_new_session=True,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
    """Ask a process to end and wait for it; kill its group if it doesn't. Its exit code."""
    if process.poll() is None:
        process.send_signal(number)
    try:
        return process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_TIMEOUT_S)
        raise AssertionError(f"process {process.args!r} did not end when asked") from None


@contextmanager
def mlflow_server(
    folder: Path, *, port: int | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """A real tracking server on SQLite with its artifacts in `folder`; yields its URL.

    It is the process that `mlflow server` starts, with the variables that it starts it with
    (`_run_server` and `mlflow/server/constants.py`), over a database whose tables are there: the
    command itself takes more than half of the time, for its imports and the tables' migrations.
    """
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    database = folder / "mlflow.db"
    if not database.exists():
        database.write_bytes(_empty_database())
    command = [
        sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1", "mlflow.server.fastapi_app:app",
    ]  # fmt: skip
    given = {
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{database}",
        "_MLFLOW_SERVER_REGISTRY_STORE": f"sqlite:///{database}",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        # Without its job runner, which is half a dozen processes that nothing here needs.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "_MLFLOW_SGI_NAME": "uvicorn",
        **(environment or {}),
    }
    with running(command, log=folder / "mlflow.log", environment=given) as process:
        wait_for_http(f"{url}/health", process, folder / "mlflow.log")
        yield url


@cache
def _empty_database() -> bytes:
    """An SQLite database with MLflow's tables, made once a process."""
    from mlflow.store.db import utils  # imports MLflow: not for unit tests

    with TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):  # MLflow's own
        database = Path(folder) / "mlflow.db"
        engine = utils.create_sqlalchemy_engine(f"sqlite:///{database}")
        utils._initialize_tables(engine)
        engine.dispose()
        return database.read_bytes()


class RestartableMlflow:
    """A real tracking server that can be stopped, and started again with what it had."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._port = free_port()
        self._running = ExitStack()
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._running.enter_context(mlflow_server(self.folder, port=self._port))

    def stop(self) -> None:
        self._running.close()


@dataclass
class Gateway:
    """A running `modelmux up`: its URL, its process and its log."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    state_dir: Path
    _client: httpx.Client | None = field(default=None, repr=False)

    @property
    def client(self) -> httpx.Client:
        """A client whose deadline is longer than the gateway's own."""
        if self._client is None:
            self._client = httpx.Client(base_url=self.url, timeout=90.0)
        return self._client

    def predict(self, name: str, body: Any, **headers: str) -> httpx.Response:
        """POST a JSON body; keyword arguments are headers with underscores for dashes."""
        return self.client.post(
            f"/models/{name}/predict",
            json=body,
            headers={key.replace("_", "-"): value for key, value in headers.items()},
        )

    def sync(self) -> dict[str, Any]:
        """Have the registry looked at now; what that changed."""
        response = self.client.post("/registry/sync")
        assert response.status_code == 200, response.text
        report: dict[str, Any] = response.json()
        return report

    def model(self, name: str) -> dict[str, Any]:
        """What `/models/{name}` shows."""
        response = self.client.get(f"/models/{name}")
        assert response.status_code == 200, response.text
        detail: dict[str, Any] = response.json()
        return detail


@contextmanager
def gateway(
    tracking_uri: str,
    folder: Path,
    *options: str,
    environment: Mapping[str, str] | None = None,
    wait: bool = True,
    terminal: int | None = None,
    bin_folder: Path = Path(sys.executable).parent,
) -> Iterator[Gateway]:
    """A real `modelmux up` on a free port, with its state in `folder`; see `running`."""
    port = free_port()
    state_dir = folder / "state"
    log = folder / "gateway.log"
    command = [
        str(bin_folder / "modelmux"), "up",
        "--tracking-uri", tracking_uri, "--port", str(port), "--state-dir", str(state_dir),
        *options,
    ]  # fmt: skip
    with running(
        command, log=log, environment=environment, cwd=folder, terminal=terminal
    ) as process:
        url = f"http://127.0.0.1:{port}"
        if wait:
            wait_for_http(f"{url}/readyz", process, log)
        made = Gateway(url, process, log, state_dir)
        yield made
        if made._client is not None:
            made._client.close()


def wait_for_http(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until `url` answers with success; shows the log where the process ended instead."""

    def answers() -> bool:
        assert process.poll() is None, log.read_text(errors="replace")[-4000:]
        try:
            return httpx.get(url, timeout=5.0).is_success
        except httpx.HTTPError:
            return False

    poll(answers, timeout_s=START_TIMEOUT_S, what=f"{url} answering")


def descendants_of(group: int) -> list[str]:
    """Command lines of the processes whose session is `group`, from /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == group and fields[0] != "Z":
                found.append((stat.parent / "cmdline").read_text().replace("\0", " "))
        except (OSError, IndexError):
            continue
    return found
