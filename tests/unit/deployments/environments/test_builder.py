"""What builders of several processes know of each other. What they build is in
`tests/integration/test_environments.py`; here nothing is installed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from deployments.environments.builder import Builder, BuildFailed, BuildSettings
from deployments.environments.failures import Failure
from deployments.environments.model_needs import Needs
from deployments.environments.store import Environment, Store

TOO_OLD = Needs(python_minor=(3, 7))
ANOTHER = Needs(python_minor=(3, 6))
"""What no builder builds, and none needs uv to know."""

THREE = [Needs(python_minor=(3, 11), options=(f"--{number}",)) for number in range(3)]


def builder(folder: Path, *, most_at_once: int = 1, long_s: float = 60.0) -> Builder:
    return Builder(
        Store(folder),
        settings=BuildSettings(most_at_once=most_at_once, long_s=long_s),
        gateway_mlflow="3.0.0",
        environment={},
    )


async def failure_of(build: Builder, *, again: bool = False) -> BuildFailed:
    with pytest.raises(BuildFailed) as failed:
        await build.build(TOO_OLD, again=again)
    return failed.value


def remembered(build: Builder) -> Failure | None:
    return build.store.failure(build.digest(TOO_OLD))


async def test_what_failed_for_one_isnt_tried_by_another(tmp_path: Path) -> None:
    """Both tell the same, and when it is tried again."""
    one, two = builder(tmp_path), builder(tmp_path)
    told = [await failure_of(each) for each in (one, one, two)]
    failure = remembered(two)
    assert failure is not None
    assert failure.times == 1
    for each in told:
        assert (each.cause, each.reason) == ("python", "It needs Python 3.7, and 3.8 is the least.")
        assert each.retry_at == failure.retry_at


async def test_it_is_tried_again_by_who_is_told_to_and_when_its_time_has_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time counts."""
    build = builder(tmp_path)
    first = await failure_of(build)
    second = await failure_of(build, again=True)
    assert second.retry_at > first.retry_at
    monkeypatch.setattr("time.time", lambda: second.retry_at)
    await failure_of(build)
    failure = remembered(build)
    assert failure is not None
    assert failure.times == 3


async def test_a_store_that_cant_be_written_is_told(tmp_path: Path) -> None:
    """As what it is, and when it is tried again."""
    (tmp_path / "file").touch()
    failed = await failure_of(builder(tmp_path / "file" / "environments"))
    assert failed.cause == "disk"
    assert failed.retry_at > 0


@pytest.mark.parametrize("taken", ["slot", "digest"])
async def test_who_waits_builds_when_the_other_is_done(tmp_path: Path, taken: str) -> None:
    """For one of the places of those who may build at once, or for who builds the same."""
    build = builder(tmp_path)
    digest = build.digest(TOO_OLD)
    other = Store(tmp_path)
    lock = other.try_for_slot(1) if taken == "slot" else other.try_to_build(digest)
    assert lock is not None
    asking = asyncio.create_task(failure_of(build))
    await looked_several_times(build)
    assert not asking.done()
    assert remembered(build) is None
    os.close(lock)
    assert (await asking).cause == "python"
    for free in (other.try_for_slot(1), other.try_to_build(digest)):
        assert free is not None
        os.close(free)


async def test_who_is_closed_while_it_waits_has_not_failed(tmp_path: Path) -> None:
    """Nothing is remembered of a build that was called off."""
    build = builder(tmp_path)
    slot = Store(tmp_path).try_for_slot(1)
    assert slot is not None
    asking = asyncio.create_task(build.build(TOO_OLD))
    await looked_several_times(build)
    await build.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert remembered(build) is None
    os.close(slot)


async def test_a_failure_of_the_one_that_was_waited_for_is_everybodys(tmp_path: Path) -> None:
    """Who waited for another's build of the same doesn't repeat it."""
    build = builder(tmp_path)
    digest = build.digest(TOO_OLD)
    other = Store(tmp_path)
    lock = other.try_to_build(digest)
    assert lock is not None
    asking = asyncio.create_task(failure_of(build, again=True))
    await looked_several_times(build)
    failure = other.fail(digest, "packages", "They can't be installed.", ["why"])
    os.close(lock)
    failed = await asking
    assert (failed.lines, failed.retry_at) == (("why",), failure.retry_at)


async def test_what_somebody_asks_for_is_built_before_what_is_built_ahead(tmp_path: Path) -> None:
    """By whatever process, and whoever has waited longer."""
    one, two = builder(tmp_path), builder(tmp_path)
    slot = one.store.try_for_slot(1)
    assert slot is not None
    ahead = asyncio.create_task(one.build(ANOTHER, ahead=True))
    await looked_several_times(one)
    asked = asyncio.create_task(two.build(TOO_OLD))
    await looked_several_times(two)
    order = []
    for task, name in ((ahead, "ahead"), (asked, "asked")):
        task.add_done_callback(lambda _, name=name: order.append(name))  # type: ignore[misc]
    os.close(slot)
    for task in (ahead, asked):
        with pytest.raises(BuildFailed):
            await task
    assert order == ["asked", "ahead"]
    assert not one.store.is_anybody_first()


async def test_what_failed_before_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is asked for, while others wait for their first try."""
    one, two = builder(tmp_path), builder(tmp_path)
    failed = await failure_of(one)
    monkeypatch.setattr("time.time", lambda: failed.retry_at)
    slot = one.store.try_for_slot(1)
    assert slot is not None
    asking = [asyncio.create_task(one.build(TOO_OLD))]
    await looked_several_times(one)
    assert not one.store.is_anybody_first()
    asking.append(asyncio.create_task(two.build(ANOTHER)))
    await looked_several_times(two)
    assert one.store.is_anybody_first()
    os.close(slot)
    for task in asking:
        with pytest.raises(BuildFailed):
            await task


async def test_a_build_that_takes_long_makes_room_for_another(tmp_path: Path) -> None:
    """As many as may be built at once may go on so, and no more."""
    builds = [builder(tmp_path, long_s=0.0) for _ in range(3)]
    begun = [await begins(each, needs) for each, needs in zip(builds[:2], THREE[:2], strict=True)]
    asking = asyncio.create_task(builds[2].build(THREE[2]))
    await looked_several_times(builds[2])
    assert set(builds[2].store.building()) == {builds[0].digest(each) for each in THREE[:2]}
    for task in (*begun, asking):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.gather(*(each.close() for each in builds))
    assert not builds[0].store.building()


async def test_what_took_too_long_before_takes_nobodys_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again beside what may be built at once."""
    build = builder(tmp_path)
    failure = build.store.fail(build.digest(THREE[0]), "too_long", "It took too long.", ())
    monkeypatch.setattr("time.time", lambda: failure.retry_at)
    task = await begins(build, THREE[0])
    slot = build.store.try_for_slot(1)
    assert slot is not None
    os.close(slot)
    await build.close()
    with pytest.raises(asyncio.CancelledError):
        await task


async def begins(build: Builder, needs: Needs) -> asyncio.Task[Environment]:
    """A build that has begun, and goes on until it is cancelled."""
    begun = asyncio.Event()

    async def find(_: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    build.interpreters.find = find  # type: ignore[method-assign,assignment]
    task = asyncio.create_task(build.build(needs))
    async with asyncio.timeout(30):
        await begun.wait()
    return task


async def looked_several_times(build: Builder, times: int = 3) -> None:
    """Until the builder has looked for what it waits for, so many times."""
    seen = 0
    original: Callable[[str], Failure | None] = build.store.failure
    enough = asyncio.Event()
    loop = asyncio.get_running_loop()

    def counting(digest: str) -> Failure | None:
        nonlocal seen
        seen += 1
        if seen == times:
            loop.call_soon_threadsafe(enough.set)
        return original(digest)

    build.store.failure = counting  # type: ignore[method-assign]
    async with asyncio.timeout(30):
        await enough.wait()
    build.store.failure = original  # type: ignore[method-assign,assignment]
