"""A process from which a machine's templates are forked, so that none of them waits for imports.

It imports MLflow when the gateway starts. For each set of packages that a supervisor wants imported
ahead it forks a base, which imports them once for all. For each supervisor that connects to it, a
base forks a guard, which forks the template (see `template`): that connection is its control. Where
the supervisor's environment differs in what a package may read while it is imported, it is refused,
and starts a template of its own.

Asked at its address with a line of JSON, `{"preload": [module, …], "environ": {…}}`, it answers
`{"address": …}` of the base, or `{"refused": …}`. A base is told `{"environ": {…}, "supervisor",
"token"}`.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import uuid
from contextlib import suppress
from typing import Any

from . import lifetime, template
from .call_server import is_same_user
from .channel import connected, line_of, listening

_LONGEST_LINE = 1024 * 1024
_ASKED_S = 5.0
_BACKLOG = 256

# What no package reads while it is imported: Ray's own of a worker, a shell's, and what MLflow
# notes of a process (mlflow/telemetry), be it at its import or later.
_OF_RAY = ("RAY_", "SPT_")
_OF_MLFLOW = "_MLFLOW_TELEMETRY_SESSION_ID"
_OF_A_SHELL = frozenset({"PWD", "OLDPWD", "SHLVL", "_", "LINES", "COLUMNS", "TERM"})


def main(arguments: list[str]) -> None:
    """Be the zygote: `LISTENER_FD PARENT`. Who has connected already waits for the imports."""
    listener_fd, parent = arguments
    lifetime.die_with_parent(int(parent))
    lifetime.lead_group()
    listener = socket.socket(fileno=int(listener_fd))
    template.imported(["mlflow.pyfunc"])
    _freeze()
    _be_base(*_Zygote(listener).serve())


def matters(environ: dict[str, str]) -> dict[str, str]:
    """Of an environment what a package may read while it is imported."""
    return {
        name: value
        for name, value in environ.items()
        if name not in _OF_A_SHELL and name != _OF_MLFLOW and not name.startswith(_OF_RAY)
    }


class _Zygote:
    """Says which base a supervisor is to go to, and forks those that aren't there."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._environ = matters(dict(os.environ))
        self._bases: dict[tuple[str, ...], tuple[int, str]] = {}

    def serve(self) -> Any:
        """For ever. Returns in the bases, with what they are to import and what they listen on."""
        while True:
            connection, _ = self._listener.accept()
            with connection, suppress(OSError, ValueError, KeyError):
                asked = _heard(connection)
                if asked is None:
                    continue
                differ = _difference(self._environ, matters(asked["environ"]))
                if differ:
                    connection.sendall(line_of({"refused": differ}))
                    continue
                key = tuple(asked["preload"])
                base = self._base(key)
                if not isinstance(base, str):
                    self._listener.close()
                    connection.close()
                    return key, base
                connection.sendall(line_of({"address": base}))

    def _base(self, key: tuple[str, ...]) -> Any:
        """The address of the base of these packages; in the base itself, its listener."""
        with suppress(ChildProcessError):
            while True:
                ended, _ = os.waitpid(-1, os.WNOHANG)
                if not ended:
                    break
                self._bases = {k: v for k, v in self._bases.items() if v[0] != ended}
        known = self._bases.get(key)
        if known is not None:
            return known[1]
        address = _new_address()
        listener = listening(address, _BACKLOG)  # before it is told to anybody
        parent = os.getpid()
        pid = template.forked()
        self._bases[key] = (pid, address)
        if pid:
            listener.close()
            return address
        lifetime.die_with_parent(parent)
        return listener


def _be_base(preload: tuple[str, ...], listener: socket.socket) -> None:
    """Import the packages, and fork a guard with its template for each supervisor that connects."""
    lifetime.lead_group()
    failed = template.imported(list(preload))
    _freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # guards that end are nobody's to wait for
    while True:
        connection, _ = listener.accept()
        try:
            told = _heard(connection)
        except (OSError, ValueError):
            told = None
        if told is None:
            connection.close()
            continue
        parent = os.getpid()
        if template.forked():
            connection.close()
            continue
        listener.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        lifetime.die_with_parent(parent, by=signal.SIGTERM)
        template.guard(connection)
        _be_template(connection, told, failed)


def _be_template(control: socket.socket, told: dict[str, Any], failed: dict[str, str]) -> None:
    """What a template that is started alone is, but for its imports, which are there."""
    os.environ.clear()
    os.environ.update(told["environ"])
    with connected(told["supervisor"]) as output:
        output.sendall(line_of({"token": told["token"], "event": "output"}))
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
    template.serve(control, failed)


def _heard(connection: socket.socket) -> Any:
    """The line that the other end says first; None of another user's process."""
    if not is_same_user(connection):
        return None
    connection.settimeout(_ASKED_S)
    said = bytearray()
    while not said.endswith(b"\n") and len(said) < _LONGEST_LINE:
        data = connection.recv(65536)
        if not data:
            return None
        said += data
    connection.settimeout(None)
    return json.loads(said)


def _difference(ours: dict[str, str], theirs: dict[str, str]) -> str:
    """The names of variables that differ; empty where none does."""
    names = {name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name)}
    return ", ".join(sorted(names)[:20])


def _new_address() -> str:
    return "@modelmux-" + uuid.uuid4().hex


def _freeze() -> None:
    gc.collect()
    gc.freeze()
