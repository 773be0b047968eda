"""What people write themselves: the notebook's Ray Serve app, and FastAPI in one process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.contenders.contender import (
    Command,
    Form,
    Place,
    Serving,
    of_this_repository,
    serving,
)
from benchmarks.paths import SERVERS

_ROW = Form(name="records", path="/predict", encode=lambda records: dict(records[0]), values=list)
_LIST = Form(name="records", path="/predict_list", encode=list, values=list)


class Notebook:
    """Ray Serve with everything as it comes: Python proxy, one call per request."""

    name = "notebook"
    title = "the notebook's Ray Serve app"
    requirements = None
    predicts = True
    row_form = _ROW
    list_forms: Sequence[Form] = (_LIST,)

    @contextmanager
    def serve(self, place: Place) -> Iterator[Serving]:
        """A script with the notebook's cells."""
        command: Command = [
            place.python, SERVERS / "notebook.py", str(place.port), place.work.model
        ]  # fmt: skip
        with serving(place, command, ready="/health", environment=of_this_repository()) as started:
            yield started


class FastApiPyfunc:
    """FastAPI with the model in its own process, one call per request."""

    name = "fastapi"
    title = "FastAPI with pyfunc in one process"
    requirements = None
    predicts = True
    row_form = _ROW
    list_forms: Sequence[Form] = (_LIST,)

    @contextmanager
    def serve(self, place: Place) -> Iterator[Serving]:
        """Uvicorn with uvloop and httptools."""
        command: Command = [
            place.python, SERVERS / "fastapi_pyfunc.py", str(place.port), place.work.model
        ]  # fmt: skip
        with serving(place, command, ready="/health", environment=of_this_repository()) as started:
            yield started
