"""The floors: what answering costs where nothing is predicted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.contenders.contender import (
    Command,
    Form,
    Place,
    Serving,
    of_this_repository,
    record_or_records,
    serving,
)
from benchmarks.paths import SERVERS


def _nothing(_answer: Any) -> None:
    """A constant says nothing about the rows."""


def _form(path: str) -> Form:
    return Form(name="records", path=path, encode=record_or_records, values=_nothing)


class RayFloor:
    """An empty Ray Serve ingress behind HAProxy, as fast as Ray's own settings make it.

    Reads the body and answers as many bytes as modelmux does.
    """

    name = "floor"
    title = "empty Ray Serve ingress behind HAProxy"
    options: Sequence[str] = ()
    requirements = None
    predicts = False
    row_form = _form("/predict")
    list_forms: Sequence[Form] = ()

    @contextmanager
    def serve(self, place: Place) -> Iterator[Serving]:
        """Ray, Serve and HAProxy, all of its own."""
        length = len(f"[{place.work.rows[0].values[0]}]")
        command: Command = [place.python, SERVERS / "ray_floor.py", str(place.port), str(length)]
        command = [*command, *self.options]
        with serving(place, command, ready="/", environment=of_this_repository()) as started:
            yield started


class TunedRayFloor(RayFloor):
    """The same with what modelmux puts before Ray's machinery, for less of it per request."""

    name = "floor-tuned"
    title = "the same, with modelmux's tuning of Ray"
    options = ("--as-modelmux",)


class FastApiRayFloor(RayFloor):
    """The same with a handler of FastAPI's, as Ray's documentation writes an ingress."""

    name = "floor-fastapi"
    title = "the same, a handler of FastAPI's"
    options = ("--fastapi",)


class FastApiFloor:
    """FastAPI and pydantic on uvicorn, one process, answering a constant."""

    name = "fastapi-constant"
    title = "FastAPI and pydantic, a constant"
    requirements = None
    predicts = False
    row_form = _form("/predict")
    list_forms: Sequence[Form] = ()

    @contextmanager
    def serve(self, place: Place) -> Iterator[Serving]:
        """Uvicorn with uvloop and httptools."""
        command: Command = [place.python, SERVERS / "constant.py", str(place.port)]
        with serving(place, command, ready="/health", environment=of_this_repository()) as started:
            yield started
