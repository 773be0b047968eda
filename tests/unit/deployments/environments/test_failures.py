"""Builds that failed, as they are remembered."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from deployments.environments.failures import Failures


def test_what_failed_is_known_to_whoever_looks(tmp_path: Path) -> None:
    """With all that was said of it, until it is built."""
    failures = Failures(tmp_path / "failed")
    assert failures.find("a") is None
    failure = failures.add("a", "packages", "They can't be installed.", ["one", "two"])
    assert Failures(tmp_path / "failed").find("a") == failure
    assert (failure.cause, failure.lines, failure.times) == ("packages", ("one", "two"), 1)
    assert failures.find("b") is None
    failures.forget("a")
    failures.forget("a")
    assert failures.find("a") is None


def test_pauses_grow_up_to_an_hour_and_are_short_for_what_passes(tmp_path: Path) -> None:
    """The first is a minute; a full disk and an environment in use are looked at sooner."""
    failures = Failures(tmp_path)
    for cause, least_s, most_s in (("packages", 60.0, 3600.0), ("disk", 10.0, 300.0)):
        pauses = []
        for times in range(1, 15):
            failure = failures.add(cause, cause, "No.", [])  # type: ignore[arg-type]
            assert failure.times == times
            pauses.append(failure.retry_at - failure.failed_at)
        assert pauses[0] == pytest.approx(least_s, abs=0.01)
        assert all(least_s - 0.01 <= pause <= most_s + 0.01 for pause in pauses)
        assert max(pauses) > 4 * least_s


def test_one_is_fresh_until_its_time_has_come(tmp_path: Path) -> None:
    """A clock that was set back by days doesn't keep anybody from trying."""
    failure = Failures(tmp_path).add("a", "packages", "No.", [])
    assert failure.is_fresh(failure.failed_at)
    assert not failure.is_fresh(failure.retry_at)
    assert not failure.is_fresh(failure.failed_at - 86_400)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"cause": "packages"}', "\ud800",
     '{"cause": "other", "reason": "", "lines": [], "failed_at": 1, "times": 1, "retry_at": 1}',
     '{"cause": [], "reason": "", "lines": [], "failed_at": 1, "times": 1, "retry_at": 1}',
     '{"cause": "disk", "reason": "", "lines": 1, "failed_at": 1, "times": 1, "retry_at": 1}',
     '{"cause": "disk", "reason": "", "lines": [], "failed_at": [], "times": 1, "retry_at": 1}',
     '{"cause": "disk", "reason": "", "lines": [], "failed_at": 1, "times": "x", "retry_at": 1}'],
)  # fmt: skip
def test_what_cant_be_read_is_none(tmp_path: Path, content: str) -> None:
    """Nobody is kept from building by a file that is broken, and the next failure replaces it."""
    failures = Failures(tmp_path)
    failures.add("a", "disk", "No.", [])
    (path,) = tmp_path.iterdir()
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    assert failures.find("a") is None
    assert failures.add("a", "disk", "No.", []).times == 1
    assert failures.find("a") is not None


def test_a_disk_without_room_is_no_failure_of_its_own(tmp_path: Path) -> None:
    """What can't be written is told to who asked all the same."""
    (tmp_path / "failed").write_text("no folder")
    failures = Failures(tmp_path / "failed")
    assert failures.add("a", "disk", "No.", []).reason == "No."
    assert failures.find("a") is None
    failures.remove_old()


def test_those_of_last_week_are_forgotten(tmp_path: Path) -> None:
    """And what was written by half."""
    failures = Failures(tmp_path)
    failures.add("old", "packages", "No.", [])
    failures.add("new", "packages", "No.", [])
    (tmp_path / "old.1.partial").touch()
    week_ago = time.time() - 8 * 86_400
    for path in tmp_path.glob("old*"):
        os.utime(path, (week_ago, week_ago))
    failures.remove_old()
    assert [path.name[:4] for path in tmp_path.iterdir()] == ["new-"]


def test_other_options_are_a_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who starts with another index is told what failed, and tries at once, with pauses of his own;
    where the cache is mends nothing, and no secret is in a name."""
    monkeypatch.setenv("UV_INDEX_URL", "https://one.example/simple?key=mine")
    one = Failures(tmp_path)
    failed = one.add("a", "packages", "No.", ["line"])
    monkeypatch.setenv("UV_CACHE_DIR", "/elsewhere")
    assert Failures(tmp_path).find("a") == failed
    monkeypatch.setenv("UV_INDEX_URL", "https://two.example/simple")
    two = Failures(tmp_path)
    told = two.find("a")
    assert told is not None
    assert (told.lines, told.is_fresh(time.time())) == (("line",), False)
    assert two.add("a", "packages", "Again no.", []).times == 1
    assert one.find("a") == failed
    assert not any("mine" in path.name or "one" in path.name for path in tmp_path.iterdir())
    two.forget("a")
    assert one.find("a") is None
