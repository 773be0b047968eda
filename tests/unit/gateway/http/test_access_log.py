"""One line per request, written many at a time."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest

from gateway.http import access_log
from gateway.http.access_log import PROBES, AccessEntry, AccessJournal, note_answer, note_key

MODEL = "a model\nwith=status=200 \u2028"


class Paper:
    """Where lines go, which may be full for a while."""

    def __init__(self) -> None:
        self.written = b""
        self.writes = 0
        self.is_full = False

    def write(self, lines: bytes) -> bool:
        if self.is_full:
            return False
        self.written += lines
        self.writes += 1
        return True

    @property
    def lines(self) -> list[str]:
        return self.written.decode().split("\n")[:-1]


def scope(path: str = "/models/m/predict", **headers: str) -> dict[str, Any]:
    """A request as ASGI has it."""
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "headers": raw,
        "query_string": b"key=secret",
    }  # fmt: skip


def entry(of: dict[str, Any] | None = None, status: int | None = 200) -> AccessEntry:
    return AccessEntry(1_700_000_000.25, of or scope(x_request_id="r1"), status, 0.00125)


def journal(as_json: bool) -> tuple[AccessJournal, Paper]:
    paper = Paper()
    return AccessJournal(paper.write, as_json=as_json), paper


async def logged(as_json: bool, *entries: AccessEntry) -> list[str]:
    made, paper = journal(as_json)
    for each in entries:
        made.add(each)
    made.flush()
    return paper.lines


async def test_a_json_line_tells_who_what_and_how_long() -> None:
    """All fields of a prediction, as JSON's own types."""
    asked = scope(x_request_id="r1", authorization="Bearer secret")
    note_answer(asked, MODEL, 3, 2)
    note_key(asked, "team-a")
    (line,) = await logged(True, entry(asked))
    assert json.loads(line) == {
        "timestamp": "2023-11-14T22:13:20.250Z", "level": "INFO", "logger": "gateway.access",
        "message": "POST /models/m/predict 200", "request_id": "r1", "method": "POST",
        "path": "/models/m/predict", "status": 200, "model": MODEL, "version": 3, "rows": 2,
        "ms": 1.25, "key": "team-a", "client": None,
    }  # fmt: skip


async def test_no_value_of_a_text_line_can_look_like_another_field() -> None:
    """Names are percent-encoded, so that fields and lines end where they seem to."""
    asked = scope(x_request_id="r1")
    note_answer(asked, MODEL, 3, 2)
    (line,) = await logged(False, entry(asked))
    names = re.findall(r" ([a-z_]+)=", line)
    told = "request_id method path status model version rows ms key client"
    assert " ".join(names) == told
    assert " status=200 " in line
    assert "%0A" in line


@pytest.mark.parametrize("as_json", [True, False])
async def test_what_is_secret_or_endless_is_left_out(as_json: bool) -> None:
    """No header but the request id, no query, and no more than the beginning of a long path."""
    asked = scope("/" + "x" * 10_000, authorization="Bearer secret", x_request_id="bad id")
    (line,) = await logged(as_json, entry(asked, status=None))
    assert "secret" not in line
    assert "bad id" not in line
    assert len(line) < 1000


async def test_lines_are_written_many_at_a_time_and_none_is_lost_at_the_end() -> None:
    """What came within a moment is a few writes; a flush writes what is left."""
    made, paper = journal(as_json=False)
    for _ in range(1000):
        made.add(entry())
    assert paper.writes == 0
    made.flush()
    assert len(paper.lines) == 1000
    assert paper.writes < 20


async def test_after_the_end_each_line_is_written_at_once() -> None:
    """What is still answered while the process ends has its line, too."""
    made, paper = journal(as_json=False)
    made.add(entry())
    last = Paper()
    made.close(last.write)
    made.add(entry())
    assert (len(last.lines), last.writes, paper.writes) == (2, 2, 0)


async def test_lines_wait_where_they_can_t_be_written_and_are_bounded() -> None:
    """A reader that is stuck costs the oldest lines in the end, and never memory without end."""
    made, paper = journal(as_json=False)
    paper.is_full = True
    for _ in range(25_000):
        made.add(entry())
    made.flush()
    assert paper.written == b""
    paper.is_full = False
    made.flush()
    assert len(paper.lines) + made.lost == 25_000
    assert 10_000 < len(paper.lines) <= 20_000


async def test_lost_lines_are_told_in_the_log_and_not_for_each(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once in a minute, and at the end, with how many they are by then."""
    made, paper = journal(as_json=False)
    paper.is_full = True
    now_s, told = 1000.0, []
    monkeypatch.setattr(access_log.time, "monotonic", lambda: now_s)
    with caplog.at_level(logging.WARNING):
        for is_due in (True, False, True):
            for _ in range(25_000):
                made.add(entry())
            made.flush()
            if is_due:
                told.append(made.lost)
            now_s += 40.0
        made.add(entry())
        made.flush()
        for _ in range(64):
            made.add(entry())
        made.close(paper.write)
    told.append(made.lost)
    assert [int(message.split()[0]) for message in caplog.messages] == told


async def test_probes_have_lines_only_where_they_are_asked_for() -> None:
    """What asks for a gateway's health all the time leaves no lines by default."""
    paper = Paper()
    quiet = AccessJournal(paper.write, as_json=False, without=PROBES)
    for path in ("/readyz", "/healthz", "/readyz/not"):
        quiet.add(entry(scope(path)))
    quiet.flush()
    (line,) = paper.lines
    assert "path=/readyz/not " in line
    (told,) = await logged(False, entry(scope("/readyz")))
    assert "path=/readyz " in told
