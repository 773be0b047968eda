"""Who makes room in a replica that models share: by memory, and by when they were used."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from deployments.model_process.mark import Mark
from deployments.model_replica import memory_budget
from deployments.model_replica.memory_budget import (
    MemoryBudget,
    Sharing,
    machine_bytes,
    own_bytes,
    resident_bytes,
)
from deployments.model_replica.version_process import State, VersionId, VersionProcess


class Running(VersionProcess):
    """One that is said to be this process."""

    @property
    def pid(self) -> int | None:
        return os.getpid()


NOW = 1000.0
MB = 1_000_000


def process(
    fingerprint: str, *, used_at: float = 0.0, mb: int | None = 30, state: State = State.READY
) -> VersionProcess:
    version = VersionId(model=fingerprint, number=1, fingerprint=fingerprint)
    made = Running(version, at_end=lambda _: None, at_lack=lambda *_: None)
    made.state, made.ready_at = state, used_at
    made.own_bytes = None if mb is None else mb * MB
    return made


def models(processes: Sequence[VersionProcess]) -> list[str]:
    return [each.version.model for each in processes]


async def test_the_least_recently_used_make_room() -> None:
    """As many as are needed for the rest to fit, and for one that comes; none where all fits."""
    budget = MemoryBudget(100 * MB)
    old, older, new = process("a", used_at=2), process("b", used_at=1), process("c", used_at=3)
    assert models(budget.to_end([old, older, new], NOW)) == []
    larger = process("d", used_at=4, mb=50)
    assert models(budget.to_end([old, older, new, larger], NOW)) == ["b", "a"]
    assert models(budget.to_end([old, older, new], NOW, coming=larger.version.key)) == ["b"]


async def test_who_answers_never_makes_room(tmp_path: Path) -> None:
    """Nor who has just been loaded, for somebody who waits, or is being loaded or ending."""
    budget = MemoryBudget(10 * MB)
    file = tmp_path / "mark"
    file.write_bytes(bytes(64))
    busy = process("busy", used_at=1)
    busy.mark = Mark(str(file))
    call = busy.mark.begin(2.0, 60.0)
    others = [
        process("new", used_at=NOW - 0.5),
        process("loading", state=State.LOADING),
        process("ending", state=State.ENDING),
    ]
    assert budget.to_end([busy, *others], NOW) == []
    busy.mark.end(call)
    assert models(budget.to_end([busy, *others], NOW)) == ["busy"]


async def test_nobody_ends_for_one_that_would_not_fit_then_either(tmp_path: Path) -> None:
    """While another answers, or hangs, the idle ones stay for their own callers."""
    file = tmp_path / "mark"
    file.write_bytes(bytes(64))
    hangs, idle, large = process("hangs", mb=40), process("idle", mb=30), process("large", mb=80)
    hangs.mark = Mark(str(file))
    call = hangs.mark.begin(2.0, 60.0)
    known = MemoryBudget(100 * MB, measure=lambda _: 80 * MB)
    known.measure([large], NOW)
    assert known.to_end([hangs, idle], NOW, coming=large.version.key) == []
    hangs.mark.end(call)
    ending = known.to_end([hangs, idle], NOW, coming=large.version.key)
    assert sorted(models(ending)) == ["hangs", "idle"]


async def test_templates_of_environments_count() -> None:
    """Each has its packages for itself; a version that is alone fits beside them all the same."""
    budget = MemoryBudget(100 * MB, measure=lambda _: 45 * MB)
    one = process("one")
    assert budget.has_room([one], coming="next")
    budget.measure_templates([1, 2])
    assert budget.is_exceeded([one])
    assert not budget.has_room([one], coming="next")
    assert models(budget.to_end([one], NOW)) == ["one"]
    assert budget.has_room([], coming="next")
    budget.measure_templates([])
    assert not budget.is_exceeded([one])


async def test_what_is_coming_or_ending_takes_its_place() -> None:
    """One that loads has room set aside before it can be measured, by what others take; who ends
    has its room until it is gone."""
    budget = MemoryBudget(100 * MB, measure=lambda _: 40 * MB)
    ready = process("ready", mb=None)
    loading = process("loading", mb=None, state=State.LOADING)
    assert budget.has_room([ready, loading], coming="next")  # 30 MB each, by guess
    budget.measure([ready], NOW)
    assert ready.own_bytes == 40 * MB
    assert budget.has_room([ready], coming="next")
    assert not budget.has_room([ready, loading], coming="next")
    ending = process("ending", mb=40, state=State.ENDING)
    assert not budget.has_room([ready, ending], coming="next")


async def test_who_has_grown_is_measured_at_once() -> None:
    """Of many that haven't, a few at a time, in turns: a look at each costs milliseconds."""
    looks: list[int] = []

    def look(number: int) -> int:
        looks.append(number)
        return 30 * MB

    budget = MemoryBudget(10**12, measure=look)
    processes = [process(str(number)) for number in range(20)]
    budget.measure(processes, NOW)
    assert len(looks) == 20
    processes[7].resident_bytes = 0
    budget.measure(processes, NOW + 1)
    assert 1 < len(looks) - 20 <= 5
    assert processes[7].measured_at == NOW + 1
    for later in range(2, 12):
        budget.measure(processes, NOW + later)
    assert all(each.measured_at > NOW for each in processes)


async def test_one_that_needs_more_than_all_is_found() -> None:
    """Also while it is being loaded, and with a budget that has room for it by what was known."""
    budget = MemoryBudget(100 * MB)
    large, loading = process("large", mb=101), process("loading", mb=101, state=State.LOADING)
    assert models(budget.too_large([large, loading, process("small")])) == ["large", "loading"]


def test_memory_of_ones_own_is_what_the_system_says() -> None:
    """More than nothing for a process that is there; unknown for one that isn't."""
    own = own_bytes(os.getpid())
    assert own is not None
    assert 1 * MB < own < machine_bytes()
    assert own <= resident_bytes(os.getpid())
    assert (own_bytes(2**22 + 1), resident_bytes(2**22 + 1)) == (None, 0)


def test_without_a_setting_it_is_half_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Shared by the replicas; of a container with a limit it is half of that."""
    halves = Sharing(memory_bytes=None, replicas=2, idle_timeout_s=60.0)
    assert halves.budget_bytes == machine_bytes() // 4
    limit, none = tmp_path / "limit", tmp_path / "none"
    limit.write_text("800000000\n")
    none.write_text("max\n")
    monkeypatch.setattr(memory_budget, "_CGROUP_LIMITS", (str(none), str(limit)))
    assert halves.budget_bytes == 200 * MB
    assert Sharing(memory_bytes=7, replicas=2, idle_timeout_s=60.0).budget_bytes == 7
