"""The access log: one line per request, who asked what, what came of it, in how long.

On the path of a request this costs a tuple in a list; lines are made and written many at a time,
after a moment. Must not import ray or mlflow, and knows no file: whoever makes an `AccessJournal`
says where its lines go.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import lru_cache
from math import inf
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson
from starlette.types import Scope

from gateway.http.request_identity import request_id_of

_logger = logging.getLogger(__name__)

LOGGER = "gateway.access"

PROBES = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
"""Paths that machines ask for all the time, and that tell nothing of who uses the gateway."""

_ANSWERED = "modelmux.answered"
_KEY_NAME = "modelmux.key_name"

_MOMENT_S = 0.1
_AT_ONCE = 64
"""How many lines are written at a time."""
_MOST = 20_000
"""How many are kept where they can't be written; the oldest are dropped."""
_TELL_EVERY_S = 60.0
_LONGEST_PATH = 256

ClientOf = Callable[[Scope], str | None]
"""The address of who sent a request; None where it isn't known."""

Write = Callable[[bytes], bool]
"""Takes whole lines; whether it did. Must not wait."""


def note_answer(scope: Scope, model: str | None, version: int | None, rows: int | None) -> None:
    """Say what answers the request in `scope`, for its line."""
    scope[_ANSWERED] = (model, version, rows)


def answered(scope: Scope) -> tuple[str | None, int | None, int | None]:
    """The model, the version and the rows of what answered; each None where it isn't known."""
    said: tuple[str | None, int | None, int | None] = scope.get(_ANSWERED, (None, None, None))
    return said


def note_key(scope: Scope, name: str) -> None:
    """Say what the key is called that came with the request in `scope`, for its line."""
    scope[_KEY_NAME] = name


class AccessEntry(NamedTuple):
    """What a line is made of; `status` is None where the caller left before an answer."""

    at_s: float
    scope: Scope
    status: int | None
    spent_s: float

    def fields(self, client: str | None) -> dict[str, Any]:
        """The line's fields in their order; the path without its query, percent-encoded as sent.
        `client` is the address of who asked."""
        model, version, rows = answered(self.scope)
        path = self.scope.get("raw_path") or quote(self.scope["path"]).encode()
        return {
            "request_id": request_id_of(self.scope),
            "method": self.scope["method"],
            "path": path[:_LONGEST_PATH].decode("ascii", "backslashreplace"),
            "status": self.status,
            "model": model,
            "version": version,
            "rows": rows,
            "ms": round(self.spent_s * 1e3, 2),
            "key": self.scope.get(_KEY_NAME),
            "client": client,
        }


class AccessJournal:
    """Keeps entries for a moment and writes them as lines, many at a time; loses none that can be
    written, also at the end, if it is closed then, and says how many are lost. Requests for the
    paths in `without` have no line; `client_of` tells the address of who sent one."""

    def __init__(
        self,
        write: Write,
        *,
        as_json: bool,
        without: frozenset[str] = frozenset(),
        client_of: ClientOf = lambda scope: None,
    ) -> None:
        self._write = write
        self._form = _json_line if as_json else _text_line
        self._client_of = client_of
        self._without = without
        self._entries: list[AccessEntry] = []
        self._lost = self._told = 0
        self._tell_at_s = -inf
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def _line(self, entry: AccessEntry) -> bytes:
        return self._form(entry, entry.fields(self._client_of(entry.scope)))

    def add(self, entry: AccessEntry) -> None:
        """Keep an entry; called on the event loop."""
        if entry.scope["path"] in self._without:
            return
        self._entries.append(entry)
        if self._is_closed:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_MOMENT_S, self._turn)
        if len(self._entries) > _MOST:
            del self._entries[:_AT_ONCE]
            self._lost += _AT_ONCE

    def flush(self) -> None:
        """Write what there is, as far as it is taken."""
        self._tell_of_lost()
        while self._entries and self._write_some():
            pass

    def _write_some(self) -> bool:
        """Whether they were taken."""
        batch = self._entries[:_AT_ONCE]
        is_written = self._write(b"".join(map(self._line, batch)))
        if is_written:
            del self._entries[:_AT_ONCE]
        return is_written

    def close(self, write: Write) -> None:
        """Write what there is by `write`, which may wait, and from now on each entry at once."""
        self._is_closed = True
        self._write = write
        self.flush()
        if self._lost != self._told:
            self._tell()

    def _turn(self) -> None:
        """Some lines, and the rest in turns of their own: requests wait for one part at most."""
        if self._entries and self._write_some():
            self._timer = asyncio.get_running_loop().call_later(0.0, self._turn)
            return
        self._timer = None
        self._tell_of_lost()
        if self._entries:
            self._timer = asyncio.get_running_loop().call_later(_MOMENT_S, self._turn)

    @property
    def lost(self) -> int:
        """How many entries could not be kept until they were written."""
        return self._lost

    def _tell_of_lost(self) -> None:
        if self._lost != self._told and time.monotonic() >= self._tell_at_s:
            self._tell()

    def _tell(self) -> None:
        """Say in the gateway's log how much is missing in this one, once in a while."""
        self._told, self._tell_at_s = self._lost, time.monotonic() + _TELL_EVERY_S
        _logger.warning("%d lines of the access log could not be written and are lost", self._lost)


def _json_line(entry: AccessEntry, values: dict[str, Any]) -> bytes:
    line = {
        "timestamp": f"{_utc(int(entry.at_s))}.{int(entry.at_s % 1 * 1e3):03d}Z",
        "level": "INFO",
        "logger": LOGGER,
        "message": f"{values['method']} {values['path']} {values['status'] or '-'}",
        **values,
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _text_line(entry: AccessEntry, values: dict[str, Any]) -> bytes:
    """No value has a space or a line's end in it, so none can look like another field."""
    if values["model"] is not None:
        values["model"] = _quoted(values["model"])
    said = " ".join([f"{name}={'-' if v is None else v}" for name, v in values.items()])
    at = f"{_local(int(entry.at_s))},{int(entry.at_s % 1 * 1e3):03d}"
    return f"{at} INFO {LOGGER}: {said}\n".encode()


@lru_cache(maxsize=1024)
def _quoted(model: str) -> str:
    return quote(model, safe="")


@lru_cache(maxsize=4)
def _utc(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


@lru_cache(maxsize=4)
def _local(second: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
