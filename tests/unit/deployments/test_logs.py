"""How log lines look, and what is never in them."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import time
from pathlib import Path

import pytest

from deployments.cli.log_receiver import log_receiver
from deployments.logs import (
    JsonLines,
    LogChannel,
    LogOptions,
    TextLines,
    configure_logging,
    fields,
    writer,
)

SECRET = "s3cr3t"  # pragma: allowlist secret


def record(message: str, *values: object, extra: dict[str, object] | None = None,
           error: BaseException | None = None) -> logging.LogRecord:  # fmt: skip
    """A record as a logger makes it."""
    info = None if error is None else (type(error), error, error.__traceback__)
    return logging.getLogger("gateway.x").makeRecord(
        "gateway.x", logging.ERROR, "f.py", 1, message, values, info, extra=extra
    )


def raised() -> BaseException:
    """An error with a cause and a group in its context, each with a secret in its text."""
    try:
        try:
            raise ExceptionGroup(SECRET, [KeyError(SECRET)])
        except ExceptionGroup as group:
            raise ValueError(f"bad value {SECRET}\n2026-01-01 INFO forged: line") from group
    except ValueError as error:
        return error


FORMATS = [TextLines(), JsonLines()]
both = pytest.mark.parametrize("form", FORMATS, ids=["text", "json"])


@both
def test_an_exception_is_told_by_type_and_stack(form: logging.Formatter) -> None:
    """The texts, which may repeat what a caller sent, are left out; where it happened is told."""
    line = form.format(record("failed", error=raised()))
    assert SECRET not in line
    assert "forged" not in line
    for kind in ("builtins.KeyError", "builtins.ExceptionGroup", "builtins.ValueError"):
        assert kind in line
    assert "test_logs.py:" in line
    assert "in raised" in line


@both
def test_no_message_begins_a_line_of_its_own(form: logging.Formatter) -> None:
    """Line ends and other control characters are written as escapes."""
    line = form.format(record("%s", "a\n2026-01-01 INFO forged\r\x1b[2J\u2028\x85"))
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"http://user:{SECRET}@host:5000/api", "http://host:5000/api"),
        (f"postgresql+psycopg2://u:{SECRET}@db/mlflow", "postgresql+psycopg2://db/mlflow"),
        (f"https://bucket/key?X-Amz-Signature={SECRET}&a=b", "https://bucket/key?…"),
        (f"('https://bucket/key?sig={SECRET}')", "('https://bucket/key?…')"),
        (f"https://host/path#{SECRET}", "https://host/path?…"),
        (f"postgresql://u:p/{SECRET}@host/db", "postgresql://host/db"),
        (f"postgresql://u:{SECRET}@p@host/db", "postgresql://host/db"),
        (f"https://u:p@h/x;https://c:{SECRET}@e/f", "https://e/f"),
        (f"https://u:p@h/x,https://c:{SECRET}@e/f, and", "https://e/f, and"),
        (f"https://u:p@h/x https://c:{SECRET}@e/f", "https://h/x https://e/f"),
        (f"'https://h/x','https://e/f?sig={SECRET}'", "'https://h/x','https://e/f?…'"),
        (f"https://u:p@h/a,b;c?sig={SECRET}", "https://h/a,b;c?…"),
        (f"https://bucket/key?user=a@b&sig={SECRET} gone", "https://… gone"),
        (f"https://u:p?{SECRET}/p#@h/x", "https://…"),
        (f"jdbc_https://u:{SECRET}@h/x", "jdbc_https://h/x"),
        ("no url: a@b", "no url: a@b"),
    ],
)
@both
def test_urls_lose_credentials_and_query(form: logging.Formatter, url: str, shown: str) -> None:
    """What is secret in the address of a registry or an artifact is never shown."""
    line = form.format(record("can't be fetched: %s", url))
    assert SECRET not in line
    assert shown in line


@pytest.mark.parametrize("piece", ["a.", "a://", "a://'", "a://b@", "://?", "@", "a://?'"])
def test_no_message_takes_long(piece: str) -> None:
    """A message of half a million characters that begins an address at every other one is a
    moment's work."""
    started = time.perf_counter()
    TextLines().format(record(piece * (500_000 // len(piece))))
    assert time.perf_counter() - started < 5.0


def test_a_json_line_has_its_record_s_fields() -> None:
    """Fields are members beside the common ones."""
    line = json.loads(JsonLines().format(record("%s is %d", "m", 1, extra=fields(model="m"))))
    assert (line["message"], line["level"], line["logger"]) == ("m is 1", "ERROR", "gateway.x")
    assert line["model"] == "m"
    assert line["pid"] == os.getpid()
    assert line["timestamp"].endswith("Z")


def test_lines_of_all_processes_come_together_in_order(tmp_path: Path) -> None:
    """What was sent before the end is there at the end, whole."""
    out = tmp_path / "out"
    channel = tmp_path / "log.sock"
    with out.open("wb") as target, log_receiver(channel, descriptor=target.fileno()):
        first, second = (LogChannel(str(channel), wait_s=5.0) for _ in range(2))
        for number in range(200):
            assert first.send(b"first %d\n" % number * 50)
            assert second.send(b"second %d\n" % number)
        first.close()
        second.close()
    lines = out.read_text().splitlines()
    assert [x for x in lines if x[0] == "s"] == [f"second {n}" for n in range(200)]
    assert len(lines) == 200 * 51
    assert not channel.exists()


def test_a_sender_survives_its_receiver_and_finds_the_next_one(tmp_path: Path) -> None:
    """It says that the lines weren't taken, and keeps no file open for who is gone."""
    path = tmp_path / "log.sock"
    channel = LogChannel(str(path), wait_s=5.0)
    for _ in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(str(path))
            assert channel.send(b"line\n")
            assert receiver.recv(100) == b"line\n"
        assert not channel.send(b"lost\n")
        path.unlink()
    channel.close()


def test_a_line_goes_to_stderr_where_nobody_receives_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is lost with the channel; access lines are told that they weren't taken."""
    options = LogOptions(channel=str(tmp_path / "nobody"), as_json=True)
    configure_logging(options, "gateway.test")
    logging.getLogger("gateway.test").warning("hello")
    assert json.loads(capsys.readouterr().err)["message"] == "hello"
    assert writer(options)(b"line\n") is False
    assert writer(LogOptions())(b"line\n") is True
    assert capsys.readouterr().err == "line\n"
    assert sys.modules.get("ray") is None
