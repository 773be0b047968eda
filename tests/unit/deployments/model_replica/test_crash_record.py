"""What is remembered of versions: strikes, suspensions, and who was at work at a death."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deployments.model_replica import crash_record as version_record
from deployments.model_replica.crash_record import CALL, LOAD, STRIKES, VersionRecord


class Clock:
    """The system's clock, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def _always_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version_record, "_REFRESH_S", -1.0)


def record(folder: Path, clock: Clock) -> VersionRecord:
    return VersionRecord(folder, retry_after_s=10.0, clock=clock)


def dies(folder: Path, *work: tuple[str, ...]) -> None:
    """A process that does some work (names and arguments of the record's methods) and is killed."""
    with at_work(folder, *work):
        pass


@contextmanager
def at_work(folder: Path, *work: tuple[str, ...]) -> Iterator[None]:
    """A process that did some work and goes on living until the end of the block."""
    command = [sys.executable, "-c", _PROCESS, str(folder), json.dumps(work)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        yield
    finally:
        process.kill()
        process.communicate()


_PROCESS = """
import json, pathlib, sys, threading
from deployments.model_replica.crash_record import VersionRecord
record = VersionRecord(pathlib.Path(sys.argv[1]), retry_after_s=10.0)
for method, *arguments in json.loads(sys.argv[2]):
    getattr(record, method)(*arguments)
print("done", flush=True)
threading.Event().wait()
"""


def calling(*keys: str) -> list[tuple[str, ...]]:
    """Work that is calls of these versions."""
    return [("begin", key, CALL) for key in keys]


def test_a_failed_load_is_remembered_longer_each_time(tmp_path: Path, clock: Clock) -> None:
    """10, 20, 40, 80 seconds and then no more; a load that works begins anew."""
    mine = record(tmp_path, clock)
    waits = []
    for _ in range(6):
        waits.append(mine.failed("a"))
        clock.now += waits[-1]
        assert mine.suspended_for_s("a") == 0
    assert waits == [10, 20, 40, 80, 80, 80]
    mine.succeeded("a", LOAD)
    assert mine.failed("a") == 10
    assert mine.suspended_for_s("b") == 0


def test_processes_share_what_they_know(tmp_path: Path, clock: Clock) -> None:
    """What one process learns the others see at their next look, good and bad."""
    mine, another = record(tmp_path, clock), record(tmp_path, clock)
    mine.failed("a")
    another.refresh()
    assert another.suspended_for_s("a") == 10
    clock.now += 10
    another.succeeded("a", LOAD)
    mine.refresh()
    assert not mine.is_suspect("a")


def test_a_version_that_was_at_work_at_each_death_is_suspended(
    tmp_path: Path, clock: Clock
) -> None:
    """Not after one death or two, which others may have caused; a version that had finished its
    work has nothing to do with it."""
    mine = record(tmp_path, clock)

    work = [*calling("done"), ("end", "done"), *calling("at work")]
    for death in range(1, STRIKES + 1):
        assert mine.suspended_for_s("at work") == 0
        dies(tmp_path, *work)
        mine.refresh()
        assert mine.is_suspect("at work"), death
    assert mine.suspended_for_s("at work") == 10
    assert not mine.is_suspect("done")


def test_deaths_that_are_far_apart_are_not_counted_together(tmp_path: Path, clock: Clock) -> None:
    """A strike in a call is forgotten after a minute."""
    mine = record(tmp_path, clock)
    for _ in range(STRIKES * 2):
        dies(tmp_path, *calling("a"))
        mine.refresh()
        clock.now += 61
    assert not mine.is_suspect("a")


def test_where_several_were_at_work_the_suspects_tell(tmp_path: Path, clock: Clock) -> None:
    """Two that were at work at once are both suspects. From then on they work one at a time, so
    the next deaths are of the one that was at work, whoever else was beside it."""
    mine = record(tmp_path, clock)
    dies(tmp_path, *calling("guilty", "unlucky"))
    mine.refresh()
    assert mine.is_suspect("guilty")
    assert mine.is_suspect("unlucky")
    for _ in range(STRIKES - 1):
        dies(tmp_path, *calling("guilty", "bystander"))
        mine.refresh()
    assert mine.suspended_for_s("guilty") == 10
    assert mine.suspended_for_s("unlucky") == 0
    assert not mine.is_suspect("bystander")


def test_on_probation_one_death_is_enough(tmp_path: Path, clock: Clock) -> None:
    """After a suspension the next death suspends again, twice as long; an answer clears it, a
    load alone does not."""
    mine = record(tmp_path, clock)
    for _ in range(STRIKES):
        dies(tmp_path, *calling("a"))
    mine.refresh()
    clock.now += 10
    mine.succeeded("a", LOAD)
    dies(tmp_path, *calling("a"))
    mine.refresh()
    assert mine.suspended_for_s("a") == 20
    clock.now += 20
    mine.succeeded("a", CALL)
    assert not mine.is_suspect("a")


def test_what_hung_is_blamed_alone(tmp_path: Path, clock: Clock) -> None:
    """A load that hung is suspended at once; a call that hung has a strike; and what else was at
    work in that process has nothing."""
    mine = record(tmp_path, clock)

    work = [
        *calling("beside"),
        ("begin", "slow load", LOAD),
        ("hung", "slow load", LOAD),
        ("hung", "slow call", CALL),
    ]
    dies(tmp_path, *work)
    mine.refresh()
    assert mine.is_suspect("slow load")
    assert mine.is_suspect("slow call")
    assert not mine.is_suspect("beside")


def hangs(folder: Path, key: str, clock: Clock) -> None:
    """A process that a call of the version holds up until it is given up."""
    process = record(folder, clock)
    process.begin(key, CALL)
    process.hung(key, CALL)


def test_a_version_whose_calls_all_hang_is_suspended(tmp_path: Path, clock: Clock) -> None:
    """Three within a minute with no answer between them; what is told is that its calls were the
    reason, and after a load that failed that its load was."""
    mine = record(tmp_path, clock)
    for _ in range(STRIKES):
        assert mine.suspended_for_s("a") == 0
        clock.now += 19
        hangs(tmp_path, "a", clock)
        mine.refresh()
    assert mine.suspended_for_s("a") == 10
    mine.failed("b")
    assert (mine.suspended_for("a"), mine.suspended_for("b")) == (CALL, LOAD)


def test_calls_that_hang_between_others_suspend_nobody(tmp_path: Path, clock: Clock) -> None:
    """However many hang: an answer takes them back, a load alone doesn't."""
    mine = record(tmp_path, clock)
    for _ in range(STRIKES * 2):
        hangs(tmp_path, "a", clock)
        mine.refresh()
        mine.succeeded("a", LOAD)
        assert mine.is_suspect("a")
        mine.succeeded("a", CALL)
        assert not mine.is_suspect("a")
    assert mine.suspended_for_s("a") == 0


def test_calls_that_hang_far_apart_suspend_nobody(tmp_path: Path, clock: Clock) -> None:
    """Fewer than three in a minute, answered or not."""
    mine = record(tmp_path, clock)
    for _ in range(STRIKES * 2):
        hangs(tmp_path, "a", clock)
        mine.refresh()
        clock.now += 31
    assert mine.suspended_for_s("a") == 0


def test_an_answer_says_nothing_about_deaths(tmp_path: Path, clock: Clock) -> None:
    """A version that ends its processes is found out though it answers in between."""
    mine = record(tmp_path, clock)
    for _ in range(STRIKES):
        dies(tmp_path, *calling("a"))
        mine.refresh()
        assert mine.is_suspect("a")
        if not mine.suspended_for_s("a"):
            mine.succeeded("a", CALL)
    assert mine.suspended_for_s("a") == 10


def test_a_process_that_lives_is_not_judged(tmp_path: Path, clock: Clock) -> None:
    """Work of a process counts for nothing while it goes on; once it is dead it does."""
    with at_work(tmp_path, *calling("a")):
        mine = record(tmp_path, clock)
        assert not mine.is_suspect("a")
    mine.refresh()
    assert mine.is_suspect("a")


def test_more_versions_than_there_is_room_for_take_turns(tmp_path: Path, clock: Clock) -> None:
    """However many versions came and went, the one at work is the one that is blamed."""
    mine = record(tmp_path, clock)

    keys = [f"{number}-abcdefgh" for number in range(300)]
    work = [each for key in keys for each in (*calling(key), ("end", key))]
    work += calling("last")
    dies(tmp_path, *work)
    mine.refresh()
    assert mine.is_suspect("last")
    assert not any(map(mine.is_suspect, keys))


def test_without_a_disk_this_process_still_remembers(clock: Clock) -> None:
    """Where the folder can't be made, loads that fail are remembered here."""
    mine = record(Path("/proc/none"), clock)
    mine.begin("a", LOAD)
    mine.end("a")
    assert mine.failed("a") == 10
    assert mine.suspended_for_s("a") == 10


def test_on_a_disk_that_fails_this_process_still_remembers(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A history that can't be written any more doesn't take back what was learnt since."""
    mine = record(tmp_path, clock)
    mine.failed("a")

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(version_record.os, "replace", no_space)
    assert mine.failed("b") == 10
    assert mine.failed("c") == 10
    mine.refresh()
    assert mine.suspended_for_s("b") == 10


def test_a_history_that_can_t_be_read_counts_as_none(tmp_path: Path, clock: Clock) -> None:
    """Of another release, or broken: the record starts anew."""
    (tmp_path / "history.json").write_text('{"a": {"other": 1}}')
    mine = record(tmp_path, clock)
    assert mine.failed("a") == 10
