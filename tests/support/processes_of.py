"""What the processes of a gateway use, from /proc, by what they are for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

_ROLES = (
    ("ServeReplica:modelmux:SyncService", "modelmux: sync service"),
    ("ServeReplica:modelmux:Ingress", "modelmux: ingress"),
    ("modelmux up", "modelmux: command line"),
    ("haproxy", "HAProxy"),
    ("ServeReplica:modelmux-model-", "models"),
    ("ServeReplica:modelmux-shared", "models"),
    ("model_process/start.py", "models"),
    ("ServeController", "Ray: controller"),
    ("", "Ray: the rest"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Processor seconds since their start, resident memory, and how many processes they are."""

    cpu_s: float = 0.0
    resident_bytes: int = 0
    processes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            cpu_s=self.cpu_s + other.cpu_s,
            resident_bytes=self.resident_bytes + other.resident_bytes,
            processes=self.processes + other.processes,
        )


def processes_of(session: int) -> list[int]:
    """All processes of a session, which is called by the process that began it."""
    found = []
    for process in _processes():
        fields = _stat(process)
        if fields is not None and int(fields[3]) == session:
            found.append(process)
    return found


def children_of(process: int) -> list[int]:
    """The processes whose parent it is."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def session_of(part: str) -> int:
    """The session of a process that has `part` in its command line."""
    for process in _processes():
        fields = _stat(process)
        if fields is not None and part in command_of(process):
            return int(fields[3])
    raise LookupError(f"no process has {part} in its command line")


def usage_of(processes: Iterable[int], only_role: str | None = None) -> dict[str, Usage]:
    """Usage by what the processes are for, which is told by their command lines or in one word
    for all; a process that ended meanwhile counts as nothing."""
    usage: dict[str, Usage] = {}
    for process in processes:
        fields = _stat(process)
        if fields is not None and fields[0] != "Z":
            role = only_role or _role(process)
            usage[role] = usage.get(role, Usage()) + Usage(
                cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS_PER_S,
                resident_bytes=int(fields[21]) * _PAGE_BYTES,
                processes=1,
            )
    return usage


def _processes() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").glob("[0-9]*"))


def _role(process: int) -> str:
    command = command_of(process)
    return next(role for part, role in _ROLES if part in command)


def command_of(process: int) -> str:
    """Its command line with blanks between the arguments; empty where it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _stat(process: int) -> list[str] | None:
    """The fields of /proc/…/stat after the command: state, parent, group, session, …"""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def is_alive(pid: int) -> bool:
    """Whether a process is there and hasn't ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
