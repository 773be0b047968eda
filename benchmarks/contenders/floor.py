"""The floors: what answering costs where nothing is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from benchmarks.contenders.contender import (
    Form,
    Place,
    Serving,
    record_or_records,
    serving_script,
)


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

    def serve(self, place: Place) -> AbstractContextManager[Serving]:
        """Ray, Serve and HAProxy, all of its own."""
        length = len(f"[{place.work.rows[0].values[0]}]")
        return serving_script(place, "ray_floor.py", str(length), *self.options, ready="/")


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

    def serve(self, place: Place) -> AbstractContextManager[Serving]:
        """Uvicorn with uvloop and httptools."""
        return serving_script(place, "constant.py")
