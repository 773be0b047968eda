"""What people write themselves: the notebook's Ray Serve app, FastAPI, granian."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from benchmarks.contenders.contender import Form, Place, Serving, serving_script

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

    def serve(self, place: Place) -> AbstractContextManager[Serving]:
        """A script with the notebook's cells."""
        return serving_script(place, "notebook.py", place.work.model)


class FastApiPyfunc:
    """FastAPI with the model in its own process, one call per request."""

    name = "fastapi"
    title = "FastAPI with pyfunc in one process"
    requirements = None
    predicts = True
    row_form = _ROW
    list_forms: Sequence[Form] = (_LIST,)

    def serve(self, place: Place) -> AbstractContextManager[Serving]:
        """Uvicorn with uvloop and httptools."""
        return serving_script(place, "fastapi_pyfunc.py", place.work.model)


class GranianPyfunc:
    """The strongest that is written by hand: granian's RSGI on uvloop, and whatever requests have
    come together are one call of the model."""

    name = "granian"
    title = "granian with pyfunc in one process, batching"
    requirements = "granian"
    predicts = True
    row_form = Form(name="records", path="/", encode=list, values=list)
    list_forms: Sequence[Form] = (row_form,)

    def serve(self, place: Place) -> AbstractContextManager[Serving]:
        """One worker."""
        return serving_script(place, "batching_granian.py", place.work.model, ready="/")
