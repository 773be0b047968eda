"""modelmux itself, as `modelmux up` starts it, over a real MLflow server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.contenders.contender import (
    Form,
    Place,
    Serving,
    columns,
    end_session,
    record_or_records,
)
from benchmarks.work import MODEL, register_model
from tests.support.processes import Gateway, gateway, mlflow_server


def values_of(answer: Any) -> Any:
    """The single output column of an answer."""
    return [next(iter(row.values())) if isinstance(row, dict) else row for row in answer]


@contextmanager
def whole_gateway(
    tracking_uri: str,
    folder: Path,
    *options: str,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Gateway]:
    """A real `modelmux up`; nothing that it started outlives it, however it ends."""
    session = None
    try:
        with gateway(tracking_uri, folder, *options, environment=environment) as started:
            session = started.process.pid
            yield started
    finally:
        if session is not None:
            end_session(session)


class Modelmux:
    """The gateway, with nothing set."""

    name = "modelmux"
    title = "modelmux"
    requirements = None
    predicts = True
    row_form = Form(
        name="records",
        path=f"/models/{MODEL}/predict",
        encode=record_or_records,
        values=values_of,
    )
    list_forms: Sequence[Form] = (
        row_form,
        Form(
            name="columns",
            path=row_form.path,
            encode=lambda records: {"columns": columns(records)},
            values=lambda answer: next(iter(answer["columns"].values())),
            media_type="application/vnd.modelmux-columns+json",
        ),
    )

    @contextmanager
    def serve(self, place: Place) -> Iterator[Serving]:
        """An MLflow server with the model registered, and the gateway before it."""
        with mlflow_server(place.folder) as tracking_uri:
            register_model(tracking_uri)
            with whole_gateway(tracking_uri, place.folder) as started:
                yield Serving(url=started.url, session=started.process.pid)
