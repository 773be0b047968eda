"""Memory of single processes, from /proc."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.support.processes_of import command_of, processes_of

_RESET_PEAK = "5"


class NoSuchProcess(Exception):
    """There is no process of that description in that session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Resident bytes of a process: now, and the most since `forget_peak`."""

    resident: int
    peak: int


def process_named(part: str, *, session: int) -> int:
    """The only process of a session whose command line has that part; raises NoSuchProcess."""
    found = [number for number in processes_of(session) if part in command_of(number)]
    if len(found) != 1:
        raise NoSuchProcess(f"{len(found)} processes are called {part!r}")
    return found[0]


def forget_peak(process: int) -> None:
    """Begin to look for the peak anew."""
    Path(f"/proc/{process}/clear_refs").write_text(_RESET_PEAK)


def memory_of(process: int) -> Memory:
    """What it has now, and its peak."""
    lines = (line.split() for line in _text(f"/proc/{process}/status").splitlines())
    fields = {line[0]: line[1] for line in lines if len(line) > 1}
    return Memory(
        resident=int(fields["VmRSS:"]) * 1024,
        peak=int(fields["VmHWM:"]) * 1024,
    )


def own_bytes(session: int) -> dict[int, int]:
    """What each model's process of a session has for itself alone, in bytes, by process."""
    found = {}
    for process in processes_of(session):
        if "model_process" in command_of(process):
            lines = _text(f"/proc/{process}/smaps_rollup").splitlines()
            own = [int(line.split()[1]) for line in lines if line.startswith("Private_")]
            found[process] = sum(own) * 1024
    return found


def _text(path: str | Path) -> str:
    """A file of /proc; nothing where the process has ended."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
