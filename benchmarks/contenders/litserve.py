"""LitServe with batching."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.contenders.contender import Command, Form, Place, Serving, serving
from benchmarks.paths import SERVERS


class LitServe:
    """One worker process that batches, one that takes requests."""

    name = "litserve"
    title = "LitServe, batching"
    requirements = "litserve"
    predicts = True
    row_form = Form(
        name="records",
        path="/predict",
        encode=lambda records: {"records": list(records)},
        values=list,
    )
    list_forms: Sequence[Form] = (row_form,)

    @contextmanager
    def serve(self, place: Place) -> Iterator[Serving]:
        """Settings are in the script."""
        command: Command = [
            place.python, SERVERS / "batching_litserve.py", str(place.port), place.work.model
        ]  # fmt: skip
        with serving(place, command, ready="/health") as started:
            yield started
