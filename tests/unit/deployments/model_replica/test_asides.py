"""Shadows among a replica's processes: who goes, and when none comes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from deployments.model_replica.asides import NO_ROOM, Asides
from deployments.model_replica.memory_budget import MemoryBudget, free_share
from deployments.model_replica.version_process import State, VersionId, VersionProcess

NOW = 1000.0


class Seen:
    """A process as the rules see it."""

    def __init__(self, version: VersionId, *, used_at: float = NOW, at_work: bool = False) -> None:
        self.version = version
        self.used_at = used_at
        self.is_at_work = at_work
        self.state = State.READY
        self.ready_at = 0.0
        self.own_bytes = 100
        self.pid = 1


def seen(**fields: Any) -> VersionProcess:
    given = {name: fields.pop(name) for name in ("used_at", "at_work") if name in fields}
    return cast(VersionProcess, Seen(replace(SHADOW, **fields), **given))


SHADOW = VersionId(model="m", number=2, fingerprint="b", aside=True)


def test_a_shadow_is_another_process_than_its_version() -> None:
    """So that nothing of what becomes of it is held against the version."""
    assert SHADOW.key != replace(SHADOW, aside=False).key
    assert "shadow" in SHADOW.name


def test_another_shadow_of_the_model_takes_its_place() -> None:
    """That of another model stays, and so does every version that callers ask."""
    other, same, callers = seen(fingerprint="c"), seen(), seen(fingerprint="d", aside=False)
    elsewhere = seen(fingerprint="c", model="n")
    found = Asides().replaced_by(SHADOW, [other, same, callers, elsewhere])
    assert found == [other]


def test_a_shadow_that_is_not_asked_ends() -> None:
    """After a while, unless it is at work."""
    asides = Asides(free=lambda: 1.0, idle_s=60.0)
    idle, busy = seen(used_at=NOW - 61), seen(used_at=NOW - 61, at_work=True)
    used, callers = seen(used_at=NOW - 1), seen(used_at=NOW - 61, aside=False)
    assert asides.to_end([idle, busy, used, callers], NOW) == [idle]


def test_where_memory_is_scarce_shadows_go_and_none_comes() -> None:
    """They go first, at work or not."""
    asides = Asides(free=lambda: 0.01)
    busy, callers = seen(at_work=True), seen(aside=False)
    assert asides.to_end([busy, callers], NOW) == [busy]
    assert asides.refusal() is NO_ROOM
    assert Asides(free=lambda: 0.5).refusal() is None


def test_shadows_make_room_first() -> None:
    """Of a shared deployment that is full, before versions that were used longer ago."""
    callers, shadow = seen(aside=False, used_at=NOW - 500), seen(used_at=NOW - 5)
    budget = MemoryBudget(150, measure=lambda pid: 100)
    assert list(budget.to_end([callers, shadow], NOW)) == [shadow]


def test_the_system_tells_how_much_memory_is_left() -> None:
    """As a share of what there is."""
    assert 0.0 < free_share() <= 1.0
