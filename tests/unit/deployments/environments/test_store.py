"""The folder of environments."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deployments.environments.store import Environment, Store

SAID = {
    "python_version": "3.11.7",
    "size_bytes": 10,
    "build_s": 1.5,
    "built_at": 100.0,
    "requirements": ["six==1.16.0"],
}


def put(store: Store, digest: str, *, size: int = 1000, used_at: float = 0.0) -> Environment:
    """A build of so many bytes."""
    lock = store.try_to_build(digest)
    assert lock is not None
    assert store.begin(digest) is not None
    folder = store.path(digest)
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    (folder / "content").write_bytes(b"x" * size)
    environment = store.complete(digest, SAID)
    store.end(digest)
    os.close(lock)
    os.utime(folder / "used", (used_at, used_at))
    return environment


def digests(environments: list[Environment]) -> list[str]:
    return [each.digest for each in environments]


def test_an_environment_is_there_once_it_is_complete(tmp_path: Path) -> None:
    """Until its marker is written nobody sees it, and then all that was said of it is there."""
    store = Store(tmp_path)
    lock = store.try_to_build("a")
    assert lock is not None
    assert store.begin("a") is not None
    (store.path("a") / "bin").mkdir(parents=True)
    (store.path("a") / "bin" / "python").symlink_to(sys.executable)
    assert store.find("a") is None
    assert store.all() == []
    assert store.hold("a") is None
    environment = store.complete("a", SAID)
    assert store.find("a") == environment
    assert environment.interpreter == str(tmp_path / "a" / "bin" / "python")
    assert environment.requirements == ("six==1.16.0",)


@pytest.mark.parametrize(
    "marker", ["", "{", "[]", '{"python_version": "3.11"}', '{"size_bytes": []}']
)
def test_a_marker_that_is_broken_is_none(tmp_path: Path, marker: str) -> None:
    """A disk that was full while it was written leaves no environment."""
    store = Store(tmp_path)
    put(store, "a")
    (tmp_path / "a" / "complete.json").write_text(marker)
    assert store.find("a") is None


def test_one_whose_python_is_gone_is_none(tmp_path: Path) -> None:
    """As after an upgrade of the system, or on another machine with another one."""
    store = Store(tmp_path)
    put(store, "a")
    (tmp_path / "a" / "bin" / "python").unlink()
    (tmp_path / "a" / "bin" / "python").symlink_to("/nonexistent/python")
    assert store.find("a") is None


def test_who_builds_is_alone(tmp_path: Path) -> None:
    """A second lock isn't had before the first is let go, in whatever process."""
    lock = Store(tmp_path).try_to_build("a")
    assert lock is not None
    assert Store(tmp_path).try_to_build("a") is None
    other = Store(tmp_path).try_to_build("b")
    assert other is not None
    os.close(lock)
    again = Store(tmp_path).try_to_build("a")
    assert again is not None
    os.close(again)
    os.close(other)


def test_no_more_slots_are_had_than_there_are(tmp_path: Path) -> None:
    """By all who share the folder, and one that is let go is another's."""
    locks = [Store(tmp_path).try_for_slot(2) for _ in range(3)]
    assert [lock is None for lock in locks] == [False, False, True]
    for lock in locks[:2]:
        assert lock is not None
        os.close(lock)
    again = Store(tmp_path).try_for_slot(1)
    assert again is not None
    os.close(again)


def test_a_process_that_is_killed_leaves_its_slot(tmp_path: Path) -> None:
    """And its build is none that goes on."""
    store = Store(tmp_path)
    context = multiprocessing.get_context("fork")
    begun, go_on = context.Event(), context.Event()

    def work() -> None:
        own = Store(tmp_path)
        assert own.try_for_slot(1) is not None
        assert own.try_to_build("a") is not None
        assert own.begin("a") is not None
        begun.set()
        go_on.wait(30)
        os.kill(os.getpid(), 9)

    before = time.time()
    process = context.Process(target=work)
    process.start()
    assert begun.wait(30)
    assert store.try_for_slot(1) is None
    since = store.building()
    assert list(since) == ["a"]
    assert before - 1 <= since["a"] <= time.time() + 1
    go_on.set()
    process.join(30)
    assert store.building() == {}
    slot = store.try_for_slot(1)
    assert slot is not None
    os.close(slot)


def test_who_asks_what_is_being_built_is_in_nobodys_way(tmp_path: Path) -> None:
    """Also where there is nothing at all, and of what has ended nothing is told."""
    assert Store(tmp_path / "none").building() == {}
    store = Store(tmp_path)
    lock = store.try_to_build("a")
    assert lock is not None
    assert store.begin("a") is not None
    assert list(Store(tmp_path).building()) == list(store.building()) == ["a"]
    store.end("a")
    assert store.building() == {}
    os.close(lock)


def test_a_failure_is_forgotten_with_the_build_that_succeeds(tmp_path: Path) -> None:
    """Until then pruning leaves it, for a week."""
    store = Store(tmp_path)
    store.fail("a", "packages", "No.", ["why"])
    store.fail("b", "packages", "No.", [])
    (of_b,) = (tmp_path / ".failed").glob("b-*")
    os.utime(of_b, (0, 0))
    store.prune(10**9, (), clear_cache=pytest.fail)
    assert store.failure("b") is None
    failure = Store(tmp_path).failure("a")
    assert failure is not None
    assert failure.lines == ("why",)
    put(store, "a")
    assert store.failure("a") is None


def test_a_build_that_ends_without_a_marker_leaves_nothing(tmp_path: Path) -> None:
    """Neither what was installed nor its papers."""
    store = Store(tmp_path)
    lock = store.try_to_build("a")
    assert lock is not None
    work = store.begin("a")
    assert work is not None
    (store.path("a") / "lib").mkdir(parents=True)
    store.end("a")
    os.close(lock)
    assert not work.exists()
    assert not store.path("a").exists()


def test_leftovers_are_removed_but_not_of_a_build_that_goes_on(tmp_path: Path) -> None:
    """What a killed gateway leaves goes with the next pruning, whatever the bound."""
    store = Store(tmp_path)
    for digest in ("left", "going-on"):
        (tmp_path / digest / "lib").mkdir(parents=True)
        (tmp_path / f".work-{digest}").mkdir()
    killed = Store(tmp_path).try_to_build("left")
    assert killed is not None
    os.close(killed)
    (tmp_path / ".trash-1" / "lib").mkdir(parents=True)
    lock = Store(tmp_path).try_to_build("going-on")
    assert lock is not None
    store.prune(10**9, (), clear_cache=pytest.fail)
    there = {path.name for path in tmp_path.iterdir()}
    assert there == {"going-on", ".work-going-on", ".locks"}
    os.close(lock)


def test_the_least_recently_used_go_first_and_no_more_than_must(tmp_path: Path) -> None:
    """What uv keeps goes before them; those in use stay, though all is larger than it may be."""
    store = Store(tmp_path)
    for number, digest in enumerate("abcd"):
        put(store, digest, size=100_000, used_at=1000.0 - number)
    cleared: list[int] = []
    removed = store.prune(250_000, {"d"}, clear_cache=lambda: cleared.append(store.total_bytes()))
    assert digests(removed) == ["c", "b"]
    assert digests(store.all()) == ["d", "a"]
    assert len(cleared) == 1
    assert digests(store.prune(0, {"d"}, clear_cache=lambda: None)) == ["a"]


def test_however_many_go_the_folder_is_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what two share is gone with the second; each file of an environment is looked at once
    more."""
    store = Store(tmp_path)
    for number, digest in enumerate("abcd"):
        put(store, digest, size=100_000, used_at=1000.0 + number)
        shared = store.path(digest) / "shared"
        if number == 0:
            shared.write_bytes(b"x" * 500_000)
        else:
            os.link(store.path("a") / "shared", shared)
    walked: list[str] = []
    original = os.walk
    monkeypatch.setattr(os, "walk", lambda top: walked.append(str(top)) or original(top))  # type: ignore[func-returns-value]
    removed = store.prune(600_000, (), clear_cache=lambda: None)
    assert digests(removed) == ["a", "b", "c", "d"]
    assert walked.count(str(tmp_path)) == 2


def test_nothing_is_removed_where_it_fits(tmp_path: Path) -> None:
    """What several environments share is counted once."""
    store = Store(tmp_path)
    put(store, "a", size=100_000)
    put(store, "b")
    (tmp_path / "b" / "content").unlink()
    os.link(tmp_path / "a" / "content", tmp_path / "b" / "content")
    assert store.total_bytes() < 110_000
    assert store.prune(110_000, (), clear_cache=pytest.fail) == []


def test_one_that_is_held_stays_until_it_is_let_go(tmp_path: Path) -> None:
    """To hold one is to use it: it becomes the last to go, too."""
    store = Store(tmp_path)
    put(store, "a", used_at=1.0)
    put(store, "b", used_at=2.0)
    hold = store.hold("a")
    assert hold is not None
    assert hold.environment.digest == "a"
    assert digests(store.prune(0, (), clear_cache=lambda: None)) == ["b"]
    hold.close()
    hold.close()
    assert digests(store.prune(0, (), clear_cache=lambda: None)) == ["a"]


def _hold_and_be_killed(folder: str, held: Callable[[], None]) -> None:
    assert Store(Path(folder)).hold("a") is not None
    held()
    os.kill(os.getpid(), 9)


def test_a_hold_of_another_process_counts_and_ends_with_it(tmp_path: Path) -> None:
    """A gateway that is killed keeps nothing from being pruned."""
    store = Store(tmp_path)
    put(store, "a")
    context = multiprocessing.get_context("fork")
    held, go_on = context.Event(), context.Event()

    def work() -> None:
        _hold_and_be_killed(str(tmp_path), lambda: (held.set(), go_on.wait(30))[0])

    process = context.Process(target=work)
    process.start()
    assert held.wait(30)
    assert store.prune(0, (), clear_cache=lambda: None) == []
    go_on.set()
    process.join(30)
    assert digests(store.prune(0, (), clear_cache=lambda: None)) == ["a"]


def test_a_place_in_use_isnt_cleared_for_a_build(tmp_path: Path) -> None:
    """One whose Python isn't on this machine may be in use on another that has it."""
    store = Store(tmp_path)
    put(store, "a")
    hold = store.hold("a")
    assert hold is not None
    assert store.begin("a") is None
    assert store.find("a") is not None
    hold.close()
    assert store.begin("a") is not None


def test_what_is_not_an_environment_stays(tmp_path: Path) -> None:
    """A user may name a folder that has other things in it; builds that were cut off go."""
    store = Store(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / ".work-in-progress").mkdir()
    lock = store.try_to_build("a")
    assert lock is not None
    assert store.begin("a") is not None
    store.path("a").mkdir()
    os.close(lock)
    assert store.prune(10**9, (), clear_cache=pytest.fail) == []
    assert (tmp_path / "photos").is_dir()
    assert (tmp_path / ".work-in-progress").is_dir()
    assert not store.path("a").exists()
