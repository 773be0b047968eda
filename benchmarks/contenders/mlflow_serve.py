"""`mlflow models serve`, as its documentation starts it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.contenders.contender import (
    Command,
    Form,
    Place,
    Serving,
    columns,
    serving,
    table,
)
from benchmarks.work import Record


def invocation(key: str, encode: Callable[[Sequence[Record]], Any]) -> Form:
    """One of the forms that MLflow's scoring protocol takes."""
    return Form(
        name=key,
        path="/invocations",
        encode=lambda records: {key: encode(records)},
        values=lambda answer: answer["predictions"],
    )


class MlflowServe:
    """MLflow's own scoring server."""

    name = "mlflow"
    title = "mlflow models serve"
    requirements = "mlflow"
    predicts = True
    row_form = invocation("dataframe_split", table)
    list_forms: Sequence[Form] = (
        row_form,
        invocation("dataframe_records", list),
        invocation("inputs", columns),
    )

    @contextmanager
    def serve(self, place: Place) -> Iterator[Serving]:
        """In the environment as it is; nothing is installed for the model."""
        command: Command = [
            place.python.with_name("mlflow"), "models", "serve",
            "--model-uri", place.work.model, "--env-manager", "local",
            "--host", "127.0.0.1", "--port", str(place.port),
        ]  # fmt: skip
        with serving(place, command, ready="/health") as started:
            yield started
