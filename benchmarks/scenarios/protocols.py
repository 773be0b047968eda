"""Other protocols and tables beside the typed route, and MLServer's columns: what a translation
costs, and what a table is worth that is never taken apart into rows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
import orjson
import pandas as pd
import requests
from mlflow.deployments import get_deploy_client

from benchmarks.contenders.contender import Form, Place
from benchmarks.contenders.mlserver import MLServer
from benchmarks.contenders.modelmux import Modelmux
from benchmarks.driving import LoadPlan, drive
from benchmarks.environments import interpreter
from benchmarks.measuring import checked_exchange
from benchmarks.scenarios.finding import Finding, Say, at_least
from benchmarks.scenarios.world import predict_url, world
from benchmarks.work import COLUMNS, MODEL, Question, Record, Work, prepare_work, register_model
from tests.support.processes import Gateway, free_port

_CALLERS = 64
_ROUNDS = 5
_ROUND_S, _WARM_UP_S = 2.0, 1.5
_TABLE_S = 4.0
_MANY_ROWS = 100_000
_MANY_TIMES = 5
_ARROW = "application/vnd.apache.arrow.stream"
_LENGTH = "Inference-Header-Content-Length"


def _tensors(records: Sequence[Record]) -> dict[str, object]:
    """The Open Inference Protocol as JSON, a tensor for each column."""
    inputs = [
        {"name": name, "shape": [len(records)], "datatype": "FP64", "data": values}
        for name, values in ((n, [record[n] for record in records]) for n in COLUMNS)
    ]
    return {"inputs": inputs}


_ROW_FORMS = (
    Form(
        name="v2 JSON",
        path=f"/v2/models/{MODEL}/infer",
        encode=_tensors,
        values=lambda answer: answer["outputs"][0]["data"],
    ),
    Form(
        name="MLflow records",
        path=f"/models/{MODEL}/invocations",
        encode=lambda records: {"dataframe_records": list(records)},
        values=lambda answer: [row["yield"] for row in answer["predictions"]],
    ),
)
"""One row, by other protocols than the typed route's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asking:
    """A request for a table, ready to be sent."""

    url: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def median_s(self, right: Callable[[httpx.Response], bool]) -> float:
        """The median of how long answers take, one after the other; each must be right."""
        took: list[float] = []
        with httpx.Client(timeout=60.0, headers={"Accept-Encoding": "identity"}) as client:
            end = time.perf_counter() + _WARM_UP_S + _TABLE_S
            while (began := time.perf_counter()) < end:
                response = client.post(self.url, content=self.body, headers=dict(self.headers))
                took.append(time.perf_counter() - began)
                assert response.status_code == httpx.codes.OK, response.text[:500]
        assert right(response), response.content[:500]
        return median(took[len(took) // 4 :])


class Protocols:
    """One gateway for all of it, then MLServer alone."""

    name = "protocols"

    def run(self, folder: Path, say: Say) -> Sequence[Finding]:
        """Rows by each protocol in turn, tables one after the other."""
        work = prepare_work(folder / "work")
        with world(folder, _register) as (started, _):
            findings = _rows(started, work, say)
            records_s, arrow_s, binary_s = _tables(started, work.list, say)
            findings.append(_by_the_plugin(started, say))
        mlserver_s = _mlserver(folder, work, say)
        rows = len(work.list.values)
        return [
            *findings,
            at_least(
                f"Arrow in and out, {rows:,} rows × 4, against the same as JSON records",
                records_s / arrow_s,
                8.0,
                f"{arrow_s * 1e3:.1f} and {records_s * 1e3:.1f} ms",
            ),
            at_least(
                f"v2 binary, {rows:,} rows × 4, against MLServer's columns",
                mlserver_s / binary_s,
                2.0,
                f"{binary_s * 1e3:.1f} and {mlserver_s * 1e3:.1f} ms",
            ),
        ]


def _register(uri: str) -> None:
    register_model(uri)


def _rows(started: Gateway, work: Work, say: Say) -> list[Finding]:
    """Each protocol beside the typed route in the same rounds, for the machine's mood changes."""
    forms = (Modelmux.row_form, *_ROW_FORMS)
    exchanges = {
        form.name: [checked_exchange(started.url, form, question) for question in work.rows]
        for form in forms
    }
    found: dict[str, list[float]] = {form.name: [] for form in forms}
    for number in range(_ROUNDS):
        for form in forms if number % 2 else reversed(forms):
            plan = LoadPlan(
                url=f"{started.url}{form.path}",
                exchanges=exchanges[form.name],
                callers=_CALLERS,
                warm_up_s=_WARM_UP_S,
                round_s=_ROUND_S,
                rounds=1,
            )
            found[form.name].append(drive(plan).figures.per_s)
    for name, per_s in found.items():
        say(f"  {name}: " + ", ".join(f"{each:,.0f}" for each in per_s) + " requests/s")
    typed = median(found[Modelmux.row_form.name])
    return [
        at_least(
            f"{form.name}, one row, {_CALLERS} callers, against the typed route",
            median(found[form.name]) / typed,
            0.9,
            f"{median(found[form.name]):,.0f} and {typed:,.0f} requests/s",
        )
        for form in _ROW_FORMS
    ]


def _tables(started: Gateway, question: Question, say: Say) -> tuple[float, float, float]:
    """How long 10,000 rows take as records, as Arrow and as binary tensors."""
    typed = predict_url(started, MODEL)
    values = list(question.values)
    as_json = {"Content-Type": "application/json"}
    records = _Asking(url=typed, body=orjson.dumps(question.records), headers=as_json).median_s(
        lambda response: [row["yield"] for row in response.json()] == values
    )
    frame = pd.DataFrame(question.records)
    arrow = _Asking(
        url=typed, body=_arrow(frame), headers={"Content-Type": _ARROW, "Accept": _ARROW}
    ).median_s(lambda response: _of_arrow(response.content) == values)
    body, length = _binary(frame)
    binary = _Asking(
        url=f"{started.url}/v2/models/{MODEL}/infer", body=body, headers={_LENGTH: str(length)}
    ).median_s(lambda response: _of_binary(response) == values)
    say(
        f"  {len(values):,} rows: records {records * 1e3:.1f} ms, Arrow {arrow * 1e3:.1f} ms, "
        f"binary tensors {binary * 1e3:.1f} ms"
    )
    return records, arrow, binary


def _mlserver(folder: Path, work: Work, say: Say) -> float:
    """How long the same rows take as MLServer's columns, in the form that is its fastest."""
    server = MLServer()
    python = interpreter(server.requirements, say)
    (folder / server.name).mkdir(parents=True)
    place = Place(python=python, port=free_port(), work=work, folder=folder / server.name)
    with server.serve(place) as serving:
        form = server.row_form
        exchange = checked_exchange(serving.url, form, work.list)
        asking = _Asking(
            url=f"{serving.url}{form.path}",
            body=exchange.body.encode(),
            headers={"Content-Type": "application/json"},
        )
        took_s = asking.median_s(lambda response: response.text == exchange.answer)
    say(f"  MLServer's columns: {took_s * 1e3:.1f} ms")
    return took_s


def _by_the_plugin(started: Gateway, say: Say) -> Finding:
    """A DataFrame of 100,000 rows to a DataFrame of predictions, each way as people write it."""
    generator = np.random.default_rng(1)
    frame = pd.DataFrame(generator.uniform(0.1, 7.9, (_MANY_ROWS, len(COLUMNS))), columns=COLUMNS)
    client = get_deploy_client(f"modelmux:{started.url}")  # type: ignore[no-untyped-call]
    url = predict_url(started, MODEL)

    def by_plugin() -> pd.DataFrame:
        answer: pd.DataFrame = client.predict(MODEL, frame)
        return answer

    def by_requests() -> pd.DataFrame:
        records: Any = frame.to_dict("records")
        response = requests.post(url, json=records, timeout=60.0)
        assert response.status_code == httpx.codes.OK, response.text[:500]
        return pd.DataFrame(response.json())

    pd.testing.assert_frame_equal(by_plugin(), by_requests())
    plugin_s = median(_seconds(by_plugin) for _ in range(_MANY_TIMES))
    requests_s = median(_seconds(by_requests) for _ in range(_MANY_TIMES))
    say(f"  {_MANY_ROWS:,} rows: plugin {plugin_s:.3f} s, requests {requests_s:.3f} s")
    return at_least(
        f"the plugin's predict(DataFrame) of {_MANY_ROWS:,} rows, against requests with records",
        requests_s / plugin_s,
        5.0,
        f"{plugin_s:.2f} and {requests_s:.2f} s",
    )


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _arrow(frame: pd.DataFrame) -> bytes:
    import pyarrow as pa

    table = pa.Table.from_pandas(frame, preserve_index=False)
    sink = BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _of_arrow(content: bytes) -> list[float]:
    import pyarrow as pa

    with pa.ipc.open_stream(content) as reader:
        values: list[float] = reader.read_all().column("yield").to_pylist()
    return values


def _binary(frame: pd.DataFrame) -> tuple[bytes, int]:
    """As Triton's client sends it: JSON, the tensors behind it, and how long the JSON is."""
    data = [frame[name].to_numpy().tobytes() for name in COLUMNS]
    inputs = [
        {
            "name": name,
            "shape": [len(frame), 1],
            "datatype": "FP64",
            "parameters": {"binary_data_size": len(each)},
        }
        for name, each in zip(COLUMNS, data, strict=True)
    ]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    return b"".join((head, *data)), len(head)


def _of_binary(response: httpx.Response) -> list[float]:
    tensor = np.frombuffer(response.content[int(response.headers[_LENGTH]) :], np.float64)
    values: list[float] = tensor.tolist()
    return values
