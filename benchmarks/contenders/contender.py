"""What a contender is: a server that is started with a model, and how it wants to be asked."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.paths import ROOT, SERVERS
from benchmarks.work import COLUMNS, Record, Work
from tests.support.processes import end, running, wait_for_http
from tests.support.processes_of import processes_of

# Nobody is told that a benchmark runs.
_SILENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0"}

Command = Sequence[str | Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One way to write rows as JSON, where to send it, and how to read the values in the answer,
    which is wanted as the same media type."""

    name: str
    path: str
    encode: Callable[[Sequence[Record]], Any]
    values: Callable[[Any], Any]
    media_type: str = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a contender is given: its interpreter, a port, the work, and a folder of its own."""

    python: Path
    port: int
    work: Work
    folder: Path

    @property
    def url(self) -> str:
        """Where it has to listen."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.folder / "server.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A contender that is ready: its URL, and the session in which its processes run."""

    url: str
    session: int


class Contender(Protocol):
    """A server to be measured.

    `requirements` names the file of its virtual environment; None is the one that modelmux itself
    is installed in. `list_forms` are tried one after the other, and the fastest counts; none where
    it can't take lists. Where `predicts` is False it answers a constant, which nobody checks.
    """

    @property
    def name(self) -> str:
        """In one word, for the command line."""
        ...

    @property
    def title(self) -> str:
        """For people."""
        ...

    @property
    def requirements(self) -> str | None:
        """The file of its environment."""
        ...

    @property
    def row_form(self) -> Form:
        """How it wants one row."""
        ...

    @property
    def list_forms(self) -> Sequence[Form]:
        """How it takes lists."""
        ...

    @property
    def predicts(self) -> bool:
        """Whether its answers are the model's."""
        ...

    def serve(self, place: Place) -> AbstractContextManager[Serving]:
        """Start it; on the way out nothing of it is left."""
        ...


@contextmanager
def serving(
    place: Place,
    command: Command,
    *,
    ready: str,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[Serving]:
    """A command until `ready` (a path) is answered; its whole session ends with it."""
    # The scripts in a virtual environment's folder are found by those that start one another.
    path = f"{place.python.parent}{os.pathsep}{os.environ['PATH']}"
    with running(
        [str(part) for part in command],
        log=place.log,
        environment={"PATH": path, **_SILENT, **(environment or {})},
        cwd=cwd or place.folder,
    ) as process:
        try:
            wait_for_http(f"{place.url}{ready}", process, place.log)
            yield Serving(url=place.url, session=process.pid)
        finally:
            end(process)
            end_session(process.pid)


def end_session(session: int) -> None:
    """Kill what a server that has ended left behind; the session is one that we began."""
    for number in processes_of(session):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def of_this_repository() -> dict[str, str]:
    """The environment of a server script that imports from this repository."""
    return {"PYTHONPATH": str(ROOT)}


def serving_script(
    place: Place, script: str, *arguments: str | Path, ready: str = "/health"
) -> AbstractContextManager[Serving]:
    """One of this repository's server scripts; its first argument is the port."""
    command: Command = [place.python, SERVERS / script, str(place.port), *arguments]
    return serving(place, command, ready=ready, environment=of_this_repository())


def record_or_records(records: Sequence[Record]) -> Any:
    """One row as an object, more as a list of them."""
    return dict(records[0]) if len(records) == 1 else list(records)


def table(records: Sequence[Record]) -> dict[str, Any]:
    """Column names once, then rows of bare values."""
    rows = [[record[name] for name in COLUMNS] for record in records]
    return {"columns": list(COLUMNS), "data": rows}


def columns(records: Sequence[Record]) -> dict[str, list[float]]:
    """Each column's values by its name."""
    return {name: [record[name] for record in records] for name in COLUMNS}


def written(value: Any) -> str:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":"))
