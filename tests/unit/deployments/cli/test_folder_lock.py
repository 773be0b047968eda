"""A state folder has one gateway at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.cli.folder_lock import FolderTaken, folder_of_one_gateway

_HOLD = """
import sys
from pathlib import Path
from deployments.cli.folder_lock import folder_of_one_gateway
with folder_of_one_gateway(Path(sys.argv[1]), url="http://127.0.0.1:8001"):
    print("mine", flush=True)
    sys.stdin.read()
"""


def test_a_second_gateway_is_told_who_has_the_folder(tmp_path: Path) -> None:
    """While another process has the folder it is refused, with the address and the process of the
    one that has it; one that was killed is no obstacle."""
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    with holder:
        assert holder.stdout.readline() == "mine\n"
        with (
            pytest.raises(FolderTaken, match=rf"8001 \(process {holder.pid} on .*--state-dir"),
            folder_of_one_gateway(tmp_path, url="http://127.0.0.1:8002"),
        ):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait(30)
        with folder_of_one_gateway(tmp_path, url="http://127.0.0.1:8002"):
            assert str(os.getpid()) in (tmp_path / "gateway.lock").read_text()


def test_a_folder_is_free_again_at_the_end(tmp_path: Path) -> None:
    """Who leaves it leaves it to the next one."""
    for port in (8001, 8002):
        with folder_of_one_gateway(tmp_path, url=f"http://127.0.0.1:{port}"):
            pass


def test_a_folder_that_isnt_there_is_no_obstacle(tmp_path: Path) -> None:
    """Where nothing can be kept nothing can be overwritten."""
    with folder_of_one_gateway(tmp_path / "nowhere", url="http://127.0.0.1:8001"):
        assert not (tmp_path / "nowhere").exists()
