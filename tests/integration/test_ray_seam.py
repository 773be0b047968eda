"""The one place that knows Ray's exceptions, and what of Ray is replaced."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_CASES = Path(__file__).with_name("ray_seam_cases.py")


def test_ray_is_as_ours_relies_on() -> None:
    """All cases of `ray_seam_cases` pass."""
    # In a process of its own: unit tests that run in this one must not find ray imported.
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "ignore", "-p", "no:cacheprovider", _CASES],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
