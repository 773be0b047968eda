"""A replica that models share, and its memory: real processes and real models, no Ray."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from deployments.model_replica.memory_budget import Sharing
from deployments.model_replica.supervisor import Supervisor
from deployments.model_replica.version_process import VersionId
from tests.support.supervised import asked, save_code, supervised, until

MB = 1_000_000

_ANSWERS = """
import time
taken = bytearray(b"x" * {mb} * 1_000_000)

def predict(rows):
    time.sleep(float(rows["x"].max()))
    return rows["x"] * 0 + {mb}
"""


_WAITS = """
import os, time
taken = bytearray(b"x" * 156_000_000)

def predict(rows):
    while not os.path.exists({gate!r}):
        time.sleep(0.02)
    return rows["x"] * 0 + 156
"""


def sharing(mb: int, *, idle_timeout_s: float = 600.0) -> Sharing:
    return Sharing(memory_bytes=mb * MB, replicas=1, idle_timeout_s=idle_timeout_s)


def saved(folder: Path, model: str, *, mb: int) -> VersionId:
    """A model that takes so much memory, waits for as many seconds as it is told and answers how
    much it takes."""
    return replace(save_code(folder, model, _ANSWERS.format(mb=mb)), model=model)


def events(supervisor: Supervisor, kind: str) -> list[str]:
    """Whose versions it happened to."""
    return [event[1] for event in supervisor.events.untold()["events"] if event[0] == kind]


async def answer(supervisor: Supervisor, wanted: VersionId, wait_s: float = 0.0) -> Any:
    kind, value = await asked(supervisor, wanted, [wait_s])
    assert kind == "ok", value
    return value


async def test_the_least_recently_used_makes_room(base: str, tmp_path: Path) -> None:
    """And comes back when it is asked for; all of them answer all the time."""
    a, b, c = (saved(tmp_path, name, mb=100) for name in "abc")
    async with supervised(tmp_path, zygote=base, sharing=sharing(330)) as supervisor:
        for each in (a, b, a):
            assert await answer(supervisor, each) == [100.0]
        now = time.monotonic
        await until(
            lambda: all(now() - each.ready_at > 1.0 for each in supervisor.alive), timeout_s=15.0
        )
        assert await answer(supervisor, c) == [100.0]
        await until(lambda: supervisor.events.loaded == {"a": 1, "c": 1}, timeout_s=15.0)
        assert events(supervisor, "evicted") == ["b"]
        assert await answer(supervisor, b) == [100.0]
        await until(lambda: supervisor.events.loaded == {"b": 1, "c": 1}, timeout_s=15.0)


async def test_who_answers_is_not_ended_for_another(base: str, tmp_path: Path) -> None:
    """One that is in a long call goes on with it: the newcomer waits, and no call fails."""
    busy, newcomer = saved(tmp_path, "busy", mb=100), saved(tmp_path, "newcomer", mb=100)
    async with supervised(tmp_path, zygote=base, sharing=sharing(220)) as supervisor:
        await answer(supervisor, busy)
        long = asyncio.create_task(answer(supervisor, busy, 3.0))
        await until(lambda: any(each.is_at_work for each in supervisor.alive), timeout_s=15.0)
        began = time.monotonic()
        assert await answer(supervisor, newcomer) == [100.0]
        assert long.done()
        assert await long == [100.0]
        assert time.monotonic() - began < 20.0
        assert events(supervisor, "failed") == []


async def test_who_waits_for_more_than_can_be_freed_keeps_nobody_out(
    base: str, tmp_path: Path
) -> None:
    """While one is in a long call and another doesn't fit beside it, a small one is loaded and
    answers; the large one does when its turn comes."""
    small, large = saved(tmp_path, "small", mb=1), saved(tmp_path, "large", mb=156)
    gate = tmp_path / "gate"
    gate.touch()
    waits_for_it = _WAITS.format(gate=str(gate))
    busy = replace(save_code(tmp_path, "busy", waits_for_it), model="busy")
    async with supervised(tmp_path, zygote=base, sharing=sharing(345)) as supervisor:
        now = time.monotonic
        for each in (small, large, busy):
            await answer(supervisor, each)
            await until(
                lambda: all(now() - each.ready_at > 1.0 for each in supervisor.alive),
                timeout_s=15.0,
            )
        await until(lambda: supervisor.events.loaded == {"busy": 1}, timeout_s=15.0)
        gate.unlink()
        long = asyncio.create_task(answer(supervisor, busy))
        await until(lambda: any(each.is_at_work for each in supervisor.alive), timeout_s=15.0)
        waits = asyncio.create_task(answer(supervisor, large))
        assert await answer(supervisor, small) == [1.0]
        assert not waits.done()
        gate.touch()
        assert await waits == [156.0]
        assert await long == [156.0]
        assert events(supervisor, "failed") == []


async def test_one_that_needs_more_than_there_is_is_refused(base: str, tmp_path: Path) -> None:
    """With a reason that says what to do, and its neighbour goes on answering."""
    small, large = saved(tmp_path, "small", mb=1), saved(tmp_path, "large", mb=400)
    async with supervised(tmp_path, zygote=base, sharing=sharing(200)) as supervisor:
        await answer(supervisor, small)
        await supervisor.load(large)
        await until(lambda: "large" in events(supervisor, "failed"), timeout_s=15.0)
        kind, told = await supervisor.load(large)
        assert kind == "load_failed"
        assert "it needs a deployment of its own" in told["reason"]
        assert await answer(supervisor, small) == [1.0]
        await until(lambda: supervisor.events.loaded == {"small": 1}, timeout_s=15.0)


async def test_who_is_not_used_ends(base: str, tmp_path: Path) -> None:
    """After the idle timeout, and that is no eviction; who is asked now and then stays."""
    used, idle = saved(tmp_path, "used", mb=1), saved(tmp_path, "idle", mb=1)
    async with supervised(
        tmp_path, zygote=base, sharing=sharing(500, idle_timeout_s=3.0)
    ) as supervisor:
        await answer(supervisor, idle)
        deadline = time.monotonic() + 20.0
        await answer(supervisor, used)
        while "idle" in supervisor.events.loaded:
            assert await answer(supervisor, used) == [1.0]
            assert time.monotonic() < deadline
        assert supervisor.events.loaded == {"used": 1}
        assert events(supervisor, "evicted") == []
        assert len(events(supervisor, "ok")) == 2


async def test_a_model_has_no_more_versions_than_its_tag_says(base: str, tmp_path: Path) -> None:
    """The others are another model's, and stay."""
    other = saved(tmp_path, "other", mb=1)
    versions = [
        replace(saved(tmp_path, f"m{number}", mb=1), model="m", max_loaded_versions=2)
        for number in range(3)
    ]
    async with supervised(tmp_path, zygote=base, sharing=sharing(900)) as supervisor:
        for each in (other, *versions):
            await answer(supervisor, each)
        assert supervisor.events.loaded == {"other": 1, "m": 2}
        assert events(supervisor, "evicted") == ["m"]
