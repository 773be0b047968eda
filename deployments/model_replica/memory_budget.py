"""The memory budget of a replica that models share: who makes room so that the rest fits.

What counts is what a process has for itself: what it shares with its template costs nothing more.
Templates of environments of their own count as well, since each serves few.
Knows no Ray and starts nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from deployments.model_replica.version_process import State, VersionProcess

# A scikit-learn model's, forked; only until the first one is measured.
_FIRST_GUESS_BYTES = 30_000_000
# Who has just been loaded is waited for: it answers first.
_LEAST_STAY_S = 1.0
# A look takes 4 ms for each, of the system's time. What is resident is told at once, but with all
# that is shared in it; who has grown by so much is looked at.
_MEASURED_AT_ONCE = 4
_GROWN_BYTES = 4_000_000

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """What a replica that models share goes by: `memory_bytes` is what their processes may have for
    themselves, half of the machine's divided by `replicas` where it is None; who isn't used for
    `idle_timeout_s` seconds ends."""

    memory_bytes: int | None
    replicas: int
    idle_timeout_s: float

    @property
    def budget_bytes(self) -> int:
        """What all processes of this replica may have for themselves."""
        return self.memory_bytes or machine_bytes() // 2 // self.replicas


class MemoryBudget:
    """Says which processes have to go; `measure` gives what a process has for itself in bytes, None
    where that can't be told."""

    def __init__(self, most_bytes: int, measure: Callable[[int], int | None] | None = None) -> None:
        self.most_bytes = most_bytes
        self._templates_bytes = 0
        self._measure = measure or own_bytes
        self._known: dict[str, int] = {}

    def measure(self, processes: Iterable[VersionProcess], now: float) -> None:
        """Measure those that have grown, and of the others those that weren't measured for the
        longest time; may be called in a thread."""
        oldest = sorted(processes, key=lambda each: each.measured_at)
        for place, each in enumerate(oldest):
            if each.pid is None:
                continue
            resident = resident_bytes(each.pid)
            if place < _MEASURED_AT_ONCE or resident > each.resident_bytes + _GROWN_BYTES:
                each.own_bytes, each.resident_bytes = self._measure(each.pid), resident
                each.measured_at = now
                if each.own_bytes is not None and each.state is State.READY:
                    self._known[each.version.key] = each.own_bytes

    def measure_templates(self, pids: Iterable[int]) -> None:
        """What these have counts from now on; may be called in a thread."""
        self._templates_bytes = sum(self._measure(pid) or 0 for pid in pids)

    def is_exceeded(self, processes: Iterable[VersionProcess]) -> bool:
        """Whether all these and the templates have more than they may."""
        return self._taken(processes) > self.most_bytes

    def expected_bytes(self, key: str) -> int:
        """What a version will take, by what it took before, else by what others take; at most all
        that there is."""
        known = self._known.get(key)
        if known is None and self._known:
            known = sum(self._known.values()) // len(self._known)
        return min(self.most_bytes, _FIRST_GUESS_BYTES if known is None else known)

    def has_room(self, processes: Iterable[VersionProcess], *, coming: str) -> bool:
        """Whether that version fits beside all these; alone each does that isn't too large."""
        there = list(processes)
        return not there or self._taken(there) + self.expected_bytes(coming) <= self.most_bytes

    def to_end(
        self, processes: Iterable[VersionProcess], now: float, *, coming: str | None = None
    ) -> Sequence[VersionProcess]:
        """Who has to end for the others to fit, and for the version that is coming: shadows, and
        those that were not used for the longest time, and none that answers. May be too few;
        nobody where the version that is coming wouldn't fit then either, whose turn is later."""
        staying = [each for each in processes if each.state is not State.ENDING]
        excess = self._taken(staying) - self.most_bytes
        excess += 0 if coming is None else self.expected_bytes(coming)
        idle = (
            each
            for each in staying
            if each.state is State.READY
            and not each.is_at_work
            and now - each.ready_at > _LEAST_STAY_S
        )
        ending: list[VersionProcess] = []
        for each in sorted(idle, key=lambda each: (not each.version.aside, each.used_at)):
            if excess <= 0:
                break
            ending.append(each)
            excess -= self._bytes_of(each)
        is_in_vain = coming is not None and excess > 0 and len(ending) < len(staying)
        return [] if is_in_vain else ending

    def too_large(self, processes: Iterable[VersionProcess]) -> list[VersionProcess]:
        """Those that don't fit even alone, and aren't at work."""
        return [
            each
            for each in processes
            if (each.own_bytes or 0) > self.most_bytes
            and not each.is_at_work
            and each.state in (State.LOADING, State.READY)
        ]

    def _taken(self, processes: Iterable[VersionProcess]) -> int:
        return self._templates_bytes + sum(map(self._bytes_of, processes))

    def _bytes_of(self, process: VersionProcess) -> int:
        measured = process.own_bytes or 0
        if measured and process.state is not State.LOADING:
            return measured
        return max(measured, self.expected_bytes(process.version.key))


def own_bytes(process: int) -> int | None:
    """The memory that would be free without the process; None where the system doesn't tell."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:  # it has ended, or there is no such file here
        return None
    lines = (line.split() for line in text.splitlines())
    return sum(int(line[1]) * 1024 for line in lines if line[0].startswith("Private_"))


def resident_bytes(process: int) -> int:
    """The memory of a process with all that it shares; 0 where the system doesn't tell."""
    try:
        text = Path(f"/proc/{process}/statm").read_text()
    except OSError:
        return 0
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")


def free_share() -> float:
    """Which share of the memory of this machine, or of the container that this is, can be had; 1
    where the system doesn't tell."""
    return min(_machine_free(), _container_free())


def _machine_free() -> float:
    told: dict[str, int] = {}
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            told[name] = int(rest.split()[0])
    total = told.get("MemTotal", 0)
    return told.get("MemAvailable", total) / total if total else 1.0


def _container_free() -> float:
    with suppress(OSError, ValueError, IndexError):  # none, or without a limit (`max`)
        most = int(Path(_CGROUP_LIMITS[0]).read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        # Files that were read count as used, and go when there is need.
        lines = (
            line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines()
        )
        used -= sum(int(line[1]) for line in lines if line[0] == "inactive_file")
        return max(0.0, 1.0 - used / most)
    return 1.0


def machine_bytes() -> int:
    """The memory of this machine, or of the container that this is."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # not there, or `max`
            limits.append(int(Path(path).read_text()))
    return min(limits)
