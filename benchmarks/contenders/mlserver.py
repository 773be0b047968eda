"""MLServer with its MLflow runtime and adaptive batching."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.contenders.contender import Command, Form, Place, Serving, columns, serving, table
from benchmarks.contenders.contender import written as as_json
from benchmarks.contenders.mlflow_serve import invocation
from benchmarks.work import MODEL, Record
from tests.support.processes import free_port

# What was fastest here of 32, 64 and 256 rows and of 1, 2, 5 and 10 ms.
_BATCH_ROWS = 64
_BATCH_S = 0.001
_WORKERS = 0


def _tensors(records: Sequence[Record]) -> dict[str, Any]:
    """The Open Inference Protocol: one tensor for each column."""
    inputs = [
        {"name": name, "shape": [len(values), 1], "datatype": "FP64", "data": values}
        for name, values in columns(records).items()
    ]
    # Without an id every answer has a random one.
    return {"id": "1", "parameters": {"content_type": "pd"}, "inputs": inputs}


def _values(answer: Any) -> Any:
    return answer["outputs"][0]["data"]


class MLServer:
    """Batches adaptively on the Open Inference Protocol; MLflow's own protocol goes unbatched."""

    name = "mlserver"
    title = "MLServer, adaptive batching"
    requirements = "mlserver"
    predicts = True
    row_form = Form(
        name="columns", path=f"/v2/models/{MODEL}/infer", encode=_tensors, values=_values
    )
    list_forms: Sequence[Form] = (row_form, invocation("dataframe_split", table))

    @contextmanager
    def serve(self, place: Place) -> Iterator[Serving]:
        """Its settings are files in the folder where it is started."""
        settings = {
            "host": "127.0.0.1",
            "http_port": place.port,
            "grpc_port": free_port(),
            "metrics_port": free_port(),
            "parallel_workers": _WORKERS,
            "debug": False,
        }
        model = {
            "name": MODEL,
            "implementation": "mlserver_mlflow.MLflowRuntime",
            "max_batch_size": _BATCH_ROWS,
            "max_batch_time": _BATCH_S,
            "parameters": {"uri": str(place.work.model)},
        }
        (place.folder / "settings.json").write_text(as_json(settings))
        (place.folder / "model-settings.json").write_text(as_json(model))
        command: Command = [place.python.with_name("mlserver"), "start", "."]
        with serving(place, command, ready=f"/v2/models/{MODEL}/ready") as started:
            yield started
