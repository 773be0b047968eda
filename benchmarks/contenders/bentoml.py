"""BentoML with adaptive batching."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.contenders.contender import Command, Form, Place, Serving, serving
from benchmarks.paths import SERVERS
from benchmarks.work import Record


def _form(path: str) -> Form:
    def encode(records: Sequence[Record]) -> dict[str, list[Record]]:
        return {"rows": list(records)}

    return Form(name="records", path=path, encode=encode, values=list)


class BentoMl:
    """One worker. Lists go past the batching, which refuses more rows than a batch may have."""

    name = "bentoml"
    title = "BentoML, adaptive batching"
    requirements = "bentoml"
    predicts = True
    row_form = _form("/predict")
    list_forms: Sequence[Form] = (_form("/predict_list"),)

    @contextmanager
    def serve(self, place: Place) -> Iterator[Serving]:
        """Settings are in the script."""
        command: Command = [
            place.python.with_name("bentoml"), "serve", "batching_bentoml:Flowers",
            "--host", "127.0.0.1", "--port", str(place.port), "--working-dir", SERVERS,
        ]  # fmt: skip
        environment = {
            "FLOWERS_MODEL": str(place.work.model),
            "BENTOML_HOME": str(place.folder / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
        }
        with serving(place, command, ready="/readyz", environment=environment) as started:
            yield started
