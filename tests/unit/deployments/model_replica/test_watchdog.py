"""When a process is given up: what hangs, for how long, and what is remembered of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.model_replica.crash_record import VersionRecord
from deployments.model_replica.watchdog import GRACE_S, HostWatch


class Watched:
    """A watch whose clock is moved by hand, and that only says that it gave up."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.given_up = 0
        self.record = VersionRecord(folder, retry_after_s=10.0)
        self.watch = HostWatch(
            self.record, load_timeout_s=100.0, give_up=self._give_up, clock=lambda: self.now
        )

    def _give_up(self) -> None:
        self.given_up += 1

    def after(self, seconds: float) -> int:
        """How often the process was given up, so many seconds later."""
        self.now += seconds
        self.watch.look()
        return self.given_up


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_a_call_has_hung_some_time_after_the_last_deadline(watched: Watched) -> None:
    """Not at the deadline, when its caller is told; a while later, when nothing else ended it."""
    watched.watch.begin_call("a", 60.0)
    assert watched.after(60.0) == 0
    assert watched.after(GRACE_S) == 0
    assert watched.after(0.1) == 1
    assert watched.record.is_suspect("a")


def test_a_load_has_its_own_time(watched: Watched) -> None:
    """A load that takes longer than its time ends the process, and is not tried again at once."""
    with watched.watch.loading("a"):
        assert watched.after(100.0) == 0
        assert watched.after(0.1) == 1
    assert watched.record.suspended_for_s("a") > 9.0


def test_what_came_to_an_end_is_not_watched(watched: Watched) -> None:
    """Neither a call nor a load that ended, however it did, takes the process down later."""
    watched.watch.begin_call("a", 1.0)
    watched.watch.end("a")
    with pytest.raises(ValueError, match="broken"), watched.watch.loading("b"):
        raise ValueError("broken")
    assert watched.after(1_000.0) == 0
