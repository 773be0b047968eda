"""What doesn't read a model's signature doesn't import MLflow, which takes seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIGHT = ("deployments.cli.app", "gateway.parsing.worker_process", "gateway.http.app")
"""The commands, the process that reads large bodies, and what imports the most of the gateway."""


def test_commands_and_the_reading_of_bodies_need_no_mlflow() -> None:
    """A command answers at once, and so does a process that is started for a body."""
    code = f"import sys, {', '.join(LIGHT)}; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
