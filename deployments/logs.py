"""Logging of our own processes: one line per event, as text or as JSON.

Owns how a line looks and where it goes. Takes the standard library alone, because every process of
ours has it; the lines of an exception are those of the models' processes
(`deployments.model_process.stacks`).

No line holds an exception's text, which may repeat what a caller sent or hold a password: its type
and its stack are told. Where a text is safe and needed, the call that logs puts it in its message.
Nothing in a line can begin another one, and URLs lose their credentials and their query.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import logging
import re
import socket
import sys
from collections.abc import Callable
from typing import Any

from deployments.model_process.stacks import stack_lines

PACKAGES = ("gateway", "registry_sync", "deployments")
"""The loggers of our packages. A model's replica has one of its own, "modelmux"."""

_LONGEST_LINE = 32_000
# Few lines come this way, and a receiver that is well takes one in microseconds.
_LINE_WAIT_S = 0.05
_SEND_BUFFER_BYTES = 1024 * 1024
_CONTROL = {
    code: f"\\u{code:04x}"
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)
} | {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}  # fmt: skip
# What follows a scheme, to the next space: a password that nobody encoded may hold anything else.
_ADDRESS = re.compile(r"://(\S+)")
# Without a user. Each match takes all that it looked at, so that no line takes long.
_PLACE = re.compile(r"(://[^\s?#'\"<>]*)([?#][^\s'\"<>]*)?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogOptions:
    """How lines look, and where they go.

    `channel` is the path of the socket of a `deployments.cli.log_receiver`, which is on the same
    machine; without one they go to stderr.
    """

    as_json: bool = False
    channel: str | None = None


def configure_logging(options: LogOptions, *names: str) -> None:
    """Send what the loggers `names` log as `options` say; leaves everybody else's alone."""
    handler = LineHandler(options)
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False


class LineHandler(logging.Handler):
    """Writes each record as a line to the channel, or to stderr where that can't be done."""

    def __init__(self, options: LogOptions) -> None:
        super().__init__()
        self.setFormatter(JsonLines() if options.as_json else TextLines())
        self._channel = (
            None if options.channel is None else LogChannel(options.channel, wait_s=_LINE_WAIT_S)
        )

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        try:
            line = self.format(record)[:_LONGEST_LINE] + "\n"
            if self._channel is None or not self._channel.send(line.encode("utf-8", "replace")):
                sys.stderr.write(line)
        # A boundary: logging must not fail whoever logs. `logging.Handler.handleError` would show
        # the values that were to be logged.
        except Exception:  # noqa: BLE001
            sys.stderr.write(f"a line of {record.name} could not be logged\n")


def writer(options: LogOptions, *, wait_s: float = 0.0) -> Callable[[bytes], bool]:
    """Takes whole lines to where `options` say, waiting no longer than `wait_s`; whether it did."""
    if options.channel is not None:
        return LogChannel(options.channel, wait_s=wait_s).send
    return _to_stderr


def _to_stderr(lines: bytes) -> bool:
    sys.stderr.write(lines.decode("utf-8", "replace"))
    sys.stderr.flush()
    return True


class LogChannel:
    """The sending side of the channel: whole lines, waited for no longer than `wait_s`."""

    def __init__(self, path: str, *, wait_s: float = 0.0) -> None:
        self._path = path
        self._wait_s = wait_s
        self._socket: socket.socket | None = None

    def send(self, lines: bytes) -> bool:
        """Whether the lines are on their way; if not, none of them is."""
        try:
            if self._socket is None:
                self._socket = self._connected()
            self._socket.send(lines)
        except (BlockingIOError, TimeoutError):
            return False
        except OSError:
            self.close()
            return False
        return True

    def close(self) -> None:
        """The next lines connect anew."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            made.settimeout(self._wait_s)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            made.connect(self._path)
        except OSError:
            made.close()
            raise
        return made


class TextLines(logging.Formatter):
    """`time LEVEL logger: message`, and the stack in lines that are set in."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        head = f"{self.formatTime(record)} {record.levelname} {record.name}: {message_of(record)}"
        stack = stack_of(record)
        return "\n    ".join([head, *stack])


class JsonLines(logging.Formatter):
    """An object with timestamp (UTC), level, logger, message, and `fields` of the record."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        at = dt.datetime.fromtimestamp(record.created, dt.UTC)
        line = {
            "timestamp": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": message_of(record),
            "pid": record.process,
            **getattr(record, "fields", {}),
        }
        stack = stack_of(record)
        if stack:
            line["stack"] = stack
        return json.dumps(line, ensure_ascii=False, default=str)


def message_of(record: logging.LogRecord) -> str:
    """The message in one line, without what a URL may have that is secret."""
    return _ADDRESS.sub(_shown, record.getMessage()).translate(_CONTROL)


def _shown(address: re.Match[str]) -> str:
    """Without what is before the last `@`, and without queries."""
    user, _, place = address[1].rpartition("@")
    if "?" in user or "#" in user:
        return "://…"  # of a query with an @ in it, or a password with a ?: nobody can tell
    return _PLACE.sub(_without_query, f"://{place}")


def _without_query(url: re.Match[str]) -> str:
    return f"{url[1]}{'?…' if url[2] else ''}"


def stack_of(record: logging.LogRecord) -> list[str]:
    """The types of the record's exception and of those that led to it, each with its stack; of one
    that another process told, its `stack_lines`."""
    told: list[str] = getattr(record, "stack_lines", [])
    lines = told or stack_lines(record.exc_info[1] if record.exc_info else None)
    return [line.translate(_CONTROL) for line in lines]


def fields(**values: Any) -> dict[str, Any]:
    """The `extra=` of a logging call: members of its line where lines are JSON."""
    return {"fields": values}
