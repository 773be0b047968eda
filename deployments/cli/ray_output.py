"""Redirecting what Ray writes to standard output and error to a file: both are the command's own.

Ray and what it starts write to both by `print`, by loggers, and by C++, as a driver until the
process ends. So descriptors 1 and 2 lead to the file from here on, and only the consoles of
`deployments.cli.terminal` and the log receiver have those that the user gave. Must not import ray.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from deployments.cli.terminal import err, out

_FILE = "ray.log"
# A run writes a few lines: a file of this size has had hundreds of them.
_LARGEST_BYTES = 1024 * 1024


def ray_output_file(state_dir: Path) -> Path:
    """The file that this run appends to: in the state folder, else one of its own among the
    system's temporary files."""
    file = state_dir / _FILE
    try:
        if file.exists() and file.stat().st_size > _LARGEST_BYTES:
            file.unlink()
        file.touch(mode=0o600)
    except OSError:
        descriptor, name = tempfile.mkstemp(prefix="modelmux-ray-", suffix=".log")
        os.close(descriptor)
        return Path(name)
    return file


@contextmanager
def ray_output_to(file: Path) -> Iterator[int]:
    """Have whatever writes to descriptors 1 and 2 write to the file, which is there, until the
    process ends; the consoles go on writing where they did. Yields the descriptor of the user's
    standard error.

    On the way out the interpreter has the user's streams again, for a traceback to be seen; the
    descriptors stay with the file, because Ray's threads may write last.
    """
    kept_out, kept_err = _kept(sys.stdout), _kept(sys.stderr)
    out.file, err.file = kept_out, kept_err
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
    try:
        yield kept_err.fileno()
    finally:
        with suppress(OSError):  # a full disk has no room for Ray's last words
            sys.stdout.flush()
        sys.stdout, sys.stderr = kept_out, kept_err


def _kept(stream: TextIO) -> TextIO:
    """A stream of our own to where this one leads; nothing that is started inherits it."""
    stream.flush()
    return os.fdopen(
        os.dup(stream.fileno()), "w", encoding=stream.encoding, errors=stream.errors, buffering=1
    )
