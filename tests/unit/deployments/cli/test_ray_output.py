"""The command's two streams are its own: each test runs a program that others write in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from deployments.cli.ray_output import ray_output_file

ROOT = Path(__file__).parents[4]
OTHERS = """
import logging, os, subprocess, sys, threading
from pathlib import Path
from deployments.cli.ray_output import ray_output_to
from deployments.cli.terminal import err, out, status_line

logger = logging.getLogger("other")
out.print("said before")
with ray_output_to(Path(sys.argv[1])) as stderr, status_line(out.print, live=True) as status:
    logger.addHandler(logging.StreamHandler())
    status.tell("said meanwhile")
    print("printed")
    logger.error("logged")
    os.write(1, b"written\\n")
    os.write(2, b"written as an error\\n")
    subprocess.run(["sh", "-c", "echo echoed; echo echoed as an error >&2"])
    os.write(stderr, b"brought by the receiver\\n")
    err.print("said of an error")
out.print("said at last")
os.write(2, b"written at last\\n")
logger.error("logged at last")
raise SystemError("our own")
"""


def test_only_what_the_command_says_is_on_its_streams(tmp_path: Path) -> None:
    """Prints, loggers, descriptors and processes of others write to the file, to the very end; the
    consoles, the receiver and a traceback of our own to the user."""
    file = ray_output_file(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", OTHERS, str(file)],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=60,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["said before", "said meanwhile", "said at last"]
    ours, _, traceback = done.stderr.partition("Traceback")
    assert ours.splitlines() == ["brought by the receiver", "said of an error"]
    assert traceback.rstrip().endswith("SystemError: our own")
    assert sorted(file.read_text().splitlines()) == sorted(
        ["printed", "logged", "written", "written as an error", "echoed", "echoed as an error",
         "written at last", "logged at last"]
    )  # fmt: skip


def test_runs_are_appended_until_there_is_much(tmp_path: Path) -> None:
    """What an earlier run left is kept, and goes once the file has a mebibyte."""
    file = ray_output_file(tmp_path)
    file.write_text("of the run before")
    assert ray_output_file(tmp_path).read_text() == "of the run before"
    file.write_bytes(bytes(1024 * 1024 + 1))
    assert ray_output_file(tmp_path).read_bytes() == b""
    assert file.stat().st_mode & 0o077 == 0, "nobody else reads it"


def test_a_state_folder_that_cannot_be_written_has_it_elsewhere(tmp_path: Path) -> None:
    """There is a file all the same, named to be found."""
    elsewhere = ray_output_file(tmp_path / "missing")
    try:
        assert elsewhere.name.startswith("modelmux-ray-")
        assert elsewhere.read_bytes() == b""
    finally:
        elsewhere.unlink()
