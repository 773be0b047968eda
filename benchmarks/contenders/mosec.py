"""mosec, a front in Rust before a worker in Python, with dynamic batching."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.contenders.contender import (
    Command,
    Form,
    Place,
    Serving,
    end_session,
    serving,
)
from benchmarks.paths import SERVERS

# Above what a list of 10,000 rows takes: its default of 3 s ends those.
_TIMEOUT_MS = "60000"


class Mosec:
    """One worker process that batches. It does no types, versions, registry or metrics by model."""

    name = "mosec"
    title = "mosec, batching"
    requirements = "mosec"
    predicts = True
    row_form = Form(name="records", path="/inference", encode=list, values=list)
    list_forms: Sequence[Form] = (row_form,)

    @contextmanager
    def serve(self, place: Place) -> Iterator[Serving]:
        """Batch and wait are in the script."""
        command: Command = [
            place.python, SERVERS / "batching_mosec.py",
            "--address", "127.0.0.1", "--port", str(place.port), "--timeout", _TIMEOUT_MS,
            "--log-level", "warning",
        ]  # fmt: skip
        environment = {"MODEL": str(place.work.model)}  # its worker is spawned, and reads no more
        with serving(place, command, ready="/metrics", environment=environment) as started:
            try:
                yield started
            finally:
                # Asked to end, it waits for what it lost as long as a request may take.
                end_session(started.session)
