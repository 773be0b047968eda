"""`modelmux up` as a process: starting, waiting for its registry, stopping."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.support.harm import kill_one
from tests.support.processes import (
    descendants_of,
    end,
    free_port,
    gateway,
    mlflow_server,
    poll,
    wait_for_http,
)
from tests.support.registering import columns, register
from tests.support.terminals import Terminal
from tests.support.up_output import not_ours, not_ours_in_terminal

NUMBER = columns(("x", "double"))


def test_a_registry_that_is_away_is_waited_for_and_stopping_leaves_nothing(
    tmp_path: Path,
) -> None:
    """Said once, readyz 503 meanwhile, served as soon as it is there; SIGTERM ends all of it."""
    port = free_port()
    with gateway(
        f"http://127.0.0.1:{port}", tmp_path, "--poll-interval-s", "0.5", wait=False
    ) as running:
        wait_for_http(f"{running.url}/healthz", running.process, running.log)
        poll(lambda: "Nobody listens at" in running.log.read_text(), what="the word about it")
        not_ready = running.client.get("/readyz")
        assert (not_ready.status_code, not_ready.json()["code"]) == (503, "catalog_unavailable")
        with mlflow_server(tmp_path, port=port) as uri:
            register(uri, "late", lambda rows, params: rows, NUMBER, NUMBER)
            poll(
                lambda: '"status":"ready"' in running.client.get("/models").text,
                timeout_s=90,
                what="the model's appearance",
            )
            assert running.predict("late", {"x": 1}).json() == [{"x": 1.0}]
        assert running.predict("late", {"x": 2}).json() == [{"x": 2.0}]
        assert running.log.read_text().count("is it that address? Trying again") == 1
        assert end(running.process) == 0
        assert _left_over(running.process.pid) == []
        output = running.log.read_text()
        assert not_ours(output) == []
        assert output.endswith("Stopped.\n")
        assert "Ray's processes log to " in (running.state_dir / "ray.log").read_text()


def test_a_ctrl_c_in_the_terminal_stops_it_cleanly(tmp_path: Path) -> None:
    """A signal to the whole process group, as a terminal sends it, is a clean end too; the terminal
    has shown nothing of Ray's. What was served is served again from the snapshot when the registry
    is gone, until Ray itself is: then the command says so and ends."""
    port = free_port()
    with mlflow_server(tmp_path, port=port) as uri:
        register(uri, "kept", lambda rows, params: rows, NUMBER, NUMBER)
        with Terminal() as terminal, gateway(uri, tmp_path, terminal=terminal.line) as running:
            assert running.predict("kept", {"x": 1}).status_code == 200
            os.killpg(running.process.pid, signal.SIGINT)
            assert running.process.wait(60) == 0
            assert _left_over(running.process.pid) == []
            assert not_ours_in_terminal(terminal.shown) == []
    with gateway(f"http://127.0.0.1:{port}", tmp_path, "--poll-interval-s", "0.5") as again:
        assert again.predict("kept", {"x": 2}).json() == [{"x": 2.0}]
        poll(
            lambda: again.client.get("/readyz").json()["registry_problem"], what="the silence told"
        )
        assert again.client.get("/readyz").status_code == 200
        kill_one(again, "src/ray/raylet/raylet ")
        assert again.process.wait(60) == 2
        output = again.log.read_text()
        assert "Ray's raylet has ended, and nothing can be served without it" in output
        assert not_ours(output) == []
        assert _left_over(again.process.pid) == []


def _left_over(session: int) -> list[str]:
    poll(lambda: not descendants_of(session), timeout_s=20, what="the end of every process")
    return descendants_of(session)
