"""`modelmux up` in a terminal: starting, waiting for its registry, stopping.

What else its life has is in `test_faults_of_the_registry.py`, where it has no terminal.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.support.processes import (
    descendants_of,
    free_port,
    gateway,
    mlflow_server,
    poll,
    wait_for_http,
)
from tests.support.registering import columns, register
from tests.support.terminals import Terminal
from tests.support.up_output import not_ours_in_terminal

NUMBER = columns(("x", "double"))
SETTINGS = {"MODELMUX_DEPLOYMENT": "shared", "MODELMUX_POLL_INTERVAL_S": "0.5"}


def test_a_registry_that_is_away_is_waited_for_until_a_ctrl_c(tmp_path: Path) -> None:
    """Said once, readyz 503 meanwhile, served as soon as it is there, and on when it is gone again.
    A signal to the whole process group, as a terminal sends it, is a clean end that leaves nothing;
    the terminal has shown nothing of Ray's."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    with (
        Terminal() as terminal,
        gateway(uri, tmp_path, environment=SETTINGS, wait=False, terminal=terminal.line) as running,
    ):
        wait_for_http(f"{running.url}/healthz", running.process, running.log)
        poll(lambda: "Nobody listens at" in terminal.shown_so_far, what="the word about it")
        not_ready = running.client.get("/readyz")
        assert (not_ready.status_code, not_ready.json()["code"]) == (503, "catalog_unavailable")
        with mlflow_server(tmp_path, port=port):
            register(uri, "late", lambda rows, params: rows, NUMBER, NUMBER)
            poll(
                lambda: '"status":"ready"' in running.client.get("/models").text,
                timeout_s=90,
                what="the model's appearance",
            )
            assert running.predict("late", {"x": 1}).json() == [{"x": 1.0}]
        assert running.predict("late", {"x": 2}).json() == [{"x": 2.0}]
        os.killpg(running.process.pid, signal.SIGINT)
        assert running.process.wait(60) == 0
        poll(
            lambda: not descendants_of(running.process.pid),
            timeout_s=20,
            what="the end of every process",
        )
        shown = terminal.shown
    assert " ".join(shown.split()).count("is it that address? Trying again") == 1
    assert not_ours_in_terminal(shown) == []
