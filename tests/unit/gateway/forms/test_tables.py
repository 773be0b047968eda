"""The typed route's tables: CSV, Parquet, Arrow and JSON columns in and out, like JSON rows."""

from __future__ import annotations

import datetime
import gzip
import io
import json
import zlib
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import httpx
import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from mlflow.models.signature import ModelSignature
from mlflow.types import ColSpec, Schema
from mlflow.types.schema import AnyType, Array

from gateway.http.app import create_app
from gateway.http.predict.body import HttpLimits
from gateway.ports import Call, CallResult
from gateway.prediction import PredictionService
from tests.support.catalogs import catalog, served, signature, version
from tests.support.static_feed import StaticFeed

STREAM = "application/vnd.apache.arrow.stream"
FILE = "application/vnd.apache.arrow.file"
PARQUET = "application/vnd.apache.parquet"
CSV = "text/csv"
COLUMNS = "application/vnd.modelmux-columns+json"

KINDS = (
    ("whole", "long"),
    ("small", "integer"),
    ("share", "double"),
    ("flag", "boolean"),
    ("zone", "string"),
    ("at", "datetime"),
    ("raw", "binary"),
)
ECHO = signature(
    *KINDS,
    ("may", "double", False),
    ("count", "integer", False),
    outputs=(*KINDS, ("may", "double", False)),
    params=[{"name": "k", "type": "long", "default": 1, "shape": None}],
)
TABLE = pa.table(
    {
        "whole": pa.array([1, 2**53 + 1, -3], pa.int64()),
        "small": pa.array([1, 2, 3], pa.int16()),
        "share": pa.array([0.5, 1.25, 1e300]),
        "flag": pa.array([True, False, True]),
        "zone": pa.array(["a", 'b,"c"\nd', "ü"]),
        "at": pa.array(pd.to_datetime(["2024-01-02T03:04:05.000000007"] * 3), pa.timestamp("ns")),
        "raw": pa.array([b"z", b"\x00\xff", b"x"]),
        "may": pa.array([None, 2.5, None], pa.float64()),
        "count": pa.array([None, 7, 8], pa.int64()),
    }
)
RECORDS = [
    {
        "whole": [1, 2**53 + 1, -3][i],
        "small": i + 1,
        "share": [0.5, 1.25, 1e300][i],
        "flag": i != 1,
        "zone": ["a", 'b,"c"\nd', "ü"][i],
        "at": "2024-01-02T03:04:05.000000007",
        "raw": ["eg==", "AP8=", "eA=="][i],
        "may": [None, 2.5, None][i],
        "count": [None, 7, 8][i],
    }
    for i in range(3)
]


def written(table: pa.Table, media_type: str) -> bytes:
    sink = io.BytesIO()
    if media_type == PARQUET:
        pyarrow.parquet.write_table(table, sink)
    elif media_type == CSV:
        as_text = table.to_pandas()
        as_text["raw"] = [record["raw"] for record in RECORDS[: len(as_text)]]
        as_text["at"] = [record["at"] for record in RECORDS[: len(as_text)]]
        return as_text.to_csv(index=False).encode()
    else:
        made = pa.ipc.new_stream if media_type == STREAM else pa.ipc.new_file
        with made(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue()


def read(content: bytes, media_type: str) -> dict[str, list[Any]]:
    if media_type == PARQUET:
        return pyarrow.parquet.read_table(io.BytesIO(content)).to_pydict()
    if media_type == STREAM:
        return pa.ipc.open_stream(content).read_all().to_pydict()
    if media_type == FILE:
        return pa.ipc.open_file(content).read_all().to_pydict()
    return json.loads(content)["columns"]


class Echo:
    """A model that answers what it is given, and keeps the frames."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def call(self, call: Call) -> CallResult:
        self.calls.append(call)
        names = [str(name) for name in call.frame.names]
        return CallResult(output=("columns", names, list(call.frame.columns)))


class Bench:
    def __init__(self, text: str = ECHO, *, max_rows: int = 1000) -> None:
        self.model = Echo()
        feed = StaticFeed(catalog(served(version(1, text))))
        service = PredictionService(
            feed=feed, submit=self.model.call, default_timeout_s=60, max_rows=max_rows
        )
        app = create_app(service=service, feed=feed, limits=HttpLimits(max_body_bytes=2_000_000))
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://gw",
            headers={"Accept-Encoding": ""},
        )

    async def ask(self, content: bytes, media_type: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(
            "/models/m/predict", content=content, headers={"Content-Type": media_type, **named}
        )


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    async with made.client:
        yield made


def frames(bench: Bench) -> list[dict[str, Any]]:
    """What the model was given, so that it compares."""
    found = []
    for call in sorted(bench.model.calls, key=lambda each: len(each.frame.names)):
        columns = {}
        for name, column in zip(call.frame.names, call.frame.columns, strict=True):
            dtype = column.dtype.str if isinstance(column, np.ndarray) else "list"
            columns[name] = (dtype, [None if each != each else each for each in list(column)])
        found.append(columns)
    bench.model.calls = []
    return found


@pytest.mark.parametrize("media_type", [STREAM, FILE, PARQUET, CSV, COLUMNS])
async def test_a_table_means_what_its_rows_mean_in_json(bench: Bench, media_type: str) -> None:
    """The model gets the same columns of the same types, and the answer is the same."""
    by_rows = await bench.ask(orjson.dumps(RECORDS), "application/json")
    expected = frames(bench)
    if media_type == COLUMNS:
        content = orjson.dumps({"columns": {n: [r[n] for r in RECORDS] for n in RECORDS[0]}})
    else:
        content = written(TABLE, media_type)
    answer = await bench.ask(content, media_type)
    assert answer.status_code == 200, answer.text
    assert frames(bench) == expected
    assert answer.json() == by_rows.json()


@pytest.mark.parametrize("media_type", [STREAM, FILE, PARQUET, COLUMNS])
async def test_an_answer_is_given_as_a_table(bench: Bench, media_type: str) -> None:
    """Columns have the signature's types; null stays null."""
    answer = await bench.ask(orjson.dumps(RECORDS), "application/json", Accept=media_type)
    assert answer.headers["content-type"] == media_type
    found = read(answer.content, media_type)
    assert list(found) == [*(name for name, _ in KINDS), "may"]
    assert found["whole"] == [1, 2**53 + 1, -3]
    assert found["zone"] == ["a", 'b,"c"\nd', "ü"]
    if media_type != COLUMNS:
        assert found["raw"] == [b"z", b"\x00\xff", b"x"]
        assert found["at"] == [pd.Timestamp("2024-01-02T03:04:05.000000007")] * 3
    assert found["may"] == [None, 2.5, None]


async def test_an_answer_is_given_as_csv(bench: Bench) -> None:
    """With a header, null as an empty field, and what needs it quoted."""
    answer = await bench.ask(orjson.dumps(RECORDS), "application/json", Accept="text/csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    found = pd.read_csv(io.BytesIO(answer.content))
    assert found["zone"].tolist() == ["a", 'b,"c"\nd', "ü"]
    assert found["whole"].tolist() == [1, 2**53 + 1, -3]
    assert found["may"].isna().tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "application/json"),
        ("text/html, */*;q=0.8", "application/json"),
        ("text/html", "application/json"),
        (f"application/json;q=0.5, {STREAM}", STREAM),
        (f"application/json, {STREAM};q=0.5", "application/json"),
        (f"{STREAM};q=0", "application/json"),
        ("text/*", "text/csv; charset=utf-8"),
        (f"{CSV};q=0.5, application/json;q=0.1, */*", "text/csv; charset=utf-8"),
        (f"application/json;q=0, application/*, {CSV};q=0.1", "text/csv; charset=utf-8"),
        ("text/event-stream;q=0.5, application/json", "application/json"),
        ("application/json, text/event-stream", "application/json"),
        ("text/event-stream, application/json", "text/event-stream; charset=utf-8"),
        ("text/event-stream, */*", "text/event-stream; charset=utf-8"),
        ("text/event-stream;q=0, */*", "application/json"),
    ],
)
async def test_the_caller_s_preference_decides(bench: Bench, accept: str, media_type: str) -> None:
    """JSON unless a table or events are asked for and preferred; of what is wanted equally the
    first that is named, and of a range the plainest."""
    answer = await bench.ask(orjson.dumps(RECORDS[0]), "application/json", Accept=accept)
    assert answer.headers["content-type"] == media_type


@pytest.mark.parametrize("media_type", [STREAM, FILE, PARQUET, CSV])
@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("zone", pa.array(["a", None, "c"]), "Expected a string."),
        ("whole", pa.array([1, 2.5, 3]), "Expected a whole number"),
        ("small", pa.array([1, 2**40, 3]), "Expected a whole number"),
        ("whole", pa.array(["1", "x", "3"]), "Expected a whole number"),
        ("share", pa.array(["1", "x", "3"]), "Expected a finite number"),
        ("flag", pa.array(["true", "x", "false"]), "Expected true or false"),
        ("at", pa.array(["2024-01-01", "x", "2024-01-01"]), "Expected a date"),
    ],
)
async def test_what_is_wrong_has_a_pointer_to_its_cell(
    bench: Bench, media_type: str, name: str, column: pa.Array, message: str
) -> None:
    """422 with `/rows/1/zone`, whatever the table came in; the model isn't called."""
    i = TABLE.column_names.index(name)
    table = TABLE.set_column(i, name, column)
    content = written(table, media_type)
    if media_type == CSV:
        frame = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
        frame[name] = ["" if each is None else str(each) for each in column.to_pylist()]
        content = frame.to_csv(index=False).encode()
    answer = await bench.ask(content, media_type)
    assert answer.status_code == 422, answer.text
    errors = {each["pointer"]: each["message"] for each in answer.json()["errors"]}
    assert errors[f"/rows/1/{name}"].startswith(message)
    assert not bench.model.calls


async def test_missing_and_unknown_columns_are_told(bench: Bench) -> None:
    """As members of rows are in JSON."""
    table = TABLE.drop_columns(["zone"]).append_column("more", pa.array([1, 2, 3]))
    answer = await bench.ask(written(table, STREAM), STREAM)
    errors = {each["pointer"]: each["message"] for each in answer.json()["errors"]}
    assert errors["/columns/zone"] == "Required, and missing."
    assert errors["/columns/more"].startswith("Unknown")


@pytest.mark.parametrize("media_type", [STREAM, FILE, PARQUET, CSV, COLUMNS])
async def test_a_body_that_is_no_table_is_refused(bench: Bench, media_type: str) -> None:
    """400 for bytes that aren't what they are declared as, cut off or changed."""
    content = b'{"columns": {' if media_type == COLUMNS else written(TABLE, media_type)[:-40]
    if media_type == CSV:
        content = b"a,b\n1,2\n1,2,3\n"
    for each in (content, b"\xff\xfe no table", b""):
        answer = await bench.ask(each, media_type)
        assert answer.status_code == 400, (each[:20], answer.text)


def _stream(table: pa.Table, compression: str | None = None) -> bytes:
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pa.parquet.write_table(table, sink, compression="zstd", use_dictionary=False)
    return sink.getvalue()


_LONG = "a" * (65 * 1024 * 1024)
_MANY = pa.LargeListArray.from_arrays(pa.array([0, 10_000_000]), pa.array(np.zeros(10_000_000)))
_SAME = pa.DictionaryArray.from_arrays(pa.array([0] * 100, pa.int8()), pa.array(["a" * 700_000]))


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (lambda: _stream(pa.table({"zone": [_LONG]}), "zstd"), STREAM, 413),
        (lambda: _stream(pa.table({"zone": _SAME})), STREAM, 413),
        (lambda: _parquet(pa.table({"zone": [_LONG]})), PARQUET, 413),
        (lambda: _parquet(pa.table({"zone": _MANY})), PARQUET, 413),
        (lambda: _stream(pa.table({"zone": pa.LargeListArray.from_arrays(
            pa.array([0, 10**8]), pa.nulls(10**8))})), STREAM, 400),
    ],
)  # fmt: skip
async def test_a_small_body_is_no_huge_table(
    bench: Bench, body: Callable[[], bytes], media_type: str, status: int
) -> None:
    """However few bytes its texts and lists are, compressed, by dictionaries or without any."""
    content = body()
    assert len(content) < 1_000_000
    response = await bench.ask(content, media_type)
    assert response.status_code == status, response.text


MOMENT = datetime.datetime(2024, 7, 1, 2, 3, 4, 567891)
MAP_OF_MAPS = pa.map_(pa.string(), pa.map_(pa.string(), pa.float64()))


@pytest.mark.parametrize(
    ("items", "cells", "sent"),
    [
        ("datetime", pa.array([[MOMENT]]), ["2024-07-01T02:03:04.567891"]),
        (
            "datetime",
            pa.array([[MOMENT]], pa.list_(pa.timestamp("ns", "Europe/Berlin"))),
            ["2024-07-01T04:03:04.567891+02:00"],
        ),
        (
            "datetime",
            pa.array([[MOMENT]], pa.list_(pa.timestamp("us"), 1)),
            ["2024-07-01T02:03:04.567891"],
        ),
        ("datetime", pa.array([[MOMENT.date()]]), ["2024-07-01"]),
        ("double", pa.array([[Decimal("1.5")]]), [1.5]),
        ("binary", pa.array([[b"\xff"]]), ["/w=="]),
        ("any", pa.array([[Decimal("1.5")]]), [1.5]),
        ("any", pa.array([[MOMENT.time()]]), ["02:03:04.567891"]),
        ("any", pa.array([[b"\xff"]]), ["/w=="]),
        (
            "any",
            pa.array([[[("k", [("l", 1.0)])]]], pa.list_(MAP_OF_MAPS)),
            [{"k": {"l": 1.0}}],
        ),
    ],
)  # fmt: skip
async def test_what_is_within_lists_means_what_json_sends_for_it(
    items: str, cells: pa.Array, sent: list[Any]
) -> None:
    """Moments, decimals, bytes and maps, at any depth: a model gets the same."""
    column = ColSpec(AnyType() if items == "any" else Array(items), "a")
    text = orjson.dumps(ModelSignature(Schema([column]), Schema([column])).to_dict()).decode()
    bench = Bench(text)
    async with bench.client:
        by_json = await bench.ask(orjson.dumps([{"a": sent}]), "application/json")
        by_table = await bench.ask(written(pa.table({"a": cells}), STREAM), STREAM)
        assert by_json.status_code == 200, by_json.text
        assert (by_table.status_code, by_table.json()) == (200, by_json.json())
        of_json, of_table = (call.frame.columns for call in bench.model.calls)
        assert repr(of_json) == repr(of_table)


@pytest.mark.parametrize(
    "cells",
    [
        pa.array([[("k", 1.0), ("k", 2.0)]], pa.map_(pa.string(), pa.float64())),
        pa.array([[(1, 1.0)]], pa.map_(pa.int64(), pa.float64())),
        pa.array([datetime.timedelta(1)]),
        pa.array([[datetime.timedelta(1)]]),
    ],
)
async def test_what_json_has_no_value_for_is_refused(cells: pa.Array) -> None:
    """Where anything is taken: of two members of a name none is meant, and names are texts."""
    column = ColSpec(AnyType(), "a")
    text = orjson.dumps(ModelSignature(Schema([column])).to_dict()).decode()
    bench = Bench(text)
    async with bench.client:
        answer = await bench.ask(written(pa.table({"a": cells}), STREAM), STREAM)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_body")


@pytest.mark.parametrize("said", ["[]", "5", '{"index_columns": 5}', '{"index_columns": [{}, 5]}'])
async def test_what_others_say_of_an_index_is_overlooked(bench: Bench, said: str) -> None:
    """Pandas' word for its index is anybody's metadata."""
    table = TABLE.replace_schema_metadata({"pandas": said})
    answer = await bench.ask(written(table, STREAM), STREAM)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("kind", ["dictionary", "view", "large"])
async def test_texts_of_every_layout_are_texts(bench: Bench, kind: str) -> None:
    """As pandas' categories and Polars write them."""
    zone = TABLE["zone"].combine_chunks()
    made = zone.dictionary_encode() if kind == "dictionary" else zone.cast(
        pa.string_view() if kind == "view" else pa.large_string()
    )  # fmt: skip
    at = TABLE.column_names.index("zone")
    response = await bench.ask(_stream(TABLE.set_column(at, "zone", made)), STREAM)
    assert response.status_code == 200, response.text
    assert [row["zone"] for row in response.json()] == zone.to_pylist()


@pytest.mark.parametrize("body", [b"zone;share\na;1\n", b"zone\tshare\na\t1\n", b"\xff\xfez\0"])
async def test_what_separates_otherwise_is_told(bench: Bench, body: bytes) -> None:
    """As spreadsheets write it in some languages; nothing is guessed."""
    response = await bench.ask(body, CSV)
    assert response.status_code == 400
    assert "commas" in response.json()["detail"] or "UTF-8" in response.json()["detail"]


async def test_a_line_of_another_width_is_named(bench: Bench) -> None:
    """The problem says the line's number."""
    answer = await bench.ask(b"a,b\n1,2\n1,2,3\n", CSV)
    assert "Line 3" in answer.json()["detail"]


async def test_a_table_of_too_many_rows_is_refused() -> None:
    """413 before its rows are made: a run of one value is a few bytes of Parquet."""
    bench = Bench(signature(("x", "double")), max_rows=10)
    table = pa.table({"x": np.zeros(1_000_000)})
    async with bench.client:
        for media_type in (STREAM, FILE, PARQUET):
            content = written(table.slice(0, 11) if media_type != PARQUET else table, media_type)
            answer = await bench.ask(content, media_type)
            assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


async def test_params_come_in_a_header_beside_a_table(bench: Bench) -> None:
    """`X-Model-Params` is an object that the signature checks."""
    content = written(TABLE, STREAM)
    answer = await bench.ask(content, STREAM, X_Model_Params='{"k": 3}')
    assert answer.status_code == 200
    assert {call.params["k"] for call in bench.model.calls} == {3}
    wrong = await bench.ask(content, STREAM, X_Model_Params='{"k": "x"}')
    assert wrong.json()["errors"][0]["pointer"] == "/params/k"
    assert (await bench.ask(content, STREAM, X_Model_Params="k=3")).status_code == 400


async def test_nan_is_a_number_and_null_is_none() -> None:
    """A NaN of Arrow's passes as it does in MLflow; a null of a required column doesn't."""
    bench = Bench(signature(("x", "double")))
    async with bench.client:
        table = pa.table({"x": pa.array([1.0, float("nan")], from_pandas=False)})
        answer = await bench.ask(written(table, STREAM), STREAM)
        assert answer.status_code == 200, answer.text
        (call,) = bench.model.calls
        assert np.isnan(call.frame.columns[0][1])
        table = pa.table({"x": pa.array([1.0, None])})
        assert (await bench.ask(written(table, STREAM), STREAM)).status_code == 422


async def test_csv_is_read_by_the_signature_alone() -> None:
    """Leading zeros, words that look like null or a number, a byte order mark: texts stay texts."""
    bench = Bench(signature(("x", "string"), ("y", "string", False), outputs=()))
    async with bench.client:
        answer = await bench.ask(b'\xef\xbb\xbfx,y\r\n007,NA\r\n"",\r\n1e5,""\r\n', CSV)
        assert answer.status_code == 200, answer.text
        (call,) = bench.model.calls
        x, y = call.frame.columns
        assert list(x) == ["007", "", "1e5"]
        assert [each if each == each else None for each in y] == ["NA", None, ""]


async def test_without_pyarrow_it_is_said_what_to_install(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """415 for a body and 406 for an answer; JSON columns need nothing."""
    monkeypatch.setattr("gateway.http.predict.negotiation.has_arrow", lambda: False)
    refused = await bench.ask(b"", STREAM)
    assert refused.status_code == 415
    assert "modelmux[tables]" in refused.json()["detail"]
    refused = await bench.ask(orjson.dumps(RECORDS), "application/json", Accept=STREAM)
    assert refused.status_code == 406
    answer = await bench.ask(orjson.dumps(RECORDS), "application/json", Accept=COLUMNS)
    assert answer.status_code == 200


def packed(coding: str, content: bytes) -> bytes:
    if coding == "gzip":
        return gzip.compress(content)
    if coding == "deflate":
        return zlib.compress(content)
    if coding == "raw deflate":
        packing = zlib.compressobj(wbits=-15)
        return packing.compress(content) + packing.flush()
    codec = pa.Codec({"br": "brotli"}.get(coding, coding))
    return bytes(codec.compress(content, asbytes=True))


CODINGS = ["gzip", "deflate", "raw deflate", "br", "zstd"]


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_compressed_body_is_the_same_body(bench: Bench, coding: str) -> None:
    """And one that isn't in its coding, or ends early, is a 400."""
    content, name = packed(coding, orjson.dumps(RECORDS)), coding.removeprefix("raw ")
    answer = await bench.ask(content, "application/json", Content_Encoding=name)
    assert answer.status_code == 200, answer.text
    for wrong in (content[: len(content) // 2], b"\xff" + content, b"x"):
        refused = await bench.ask(wrong, "application/json", Content_Encoding=name)
        assert (refused.status_code, refused.json()["code"]) == (400, "malformed_body")


@pytest.mark.parametrize("between", [", ", ",identity,,", "\r\nContent-Encoding: "])
async def test_two_codings_are_undone_in_their_order(bench: Bench, between: str) -> None:
    """The last one first, however the list of them is written."""
    content = packed("br", packed("gzip", orjson.dumps(RECORDS)))
    lines = f"gzip{between}br".split("\r\nContent-Encoding: ")
    headers = [("Content-Type", "application/json"), *(("Content-Encoding", x) for x in lines)]
    answer = await bench.client.post("/models/m/predict", content=content, headers=headers)
    assert answer.status_code == 200, answer.text


async def test_each_of_two_codings_is_bounded(bench: Bench) -> None:
    """What is in between may be no larger than a body: 413."""
    content = packed("br", packed("gzip", b" " * 50_000_000))
    refused = await bench.ask(content, "application/json", Content_Encoding="gzip, br")
    assert (refused.status_code, refused.json()["code"]) == (413, "payload_too_large")


@pytest.mark.parametrize("coding", ["lzma", "gzip, lzma", "gzip, gzip, gzip"])
async def test_a_coding_that_is_not_taken_is_told_with_those_that_are(
    bench: Bench, coding: str
) -> None:
    """415 with `Accept-Encoding`; of a media type with `Accept` (RFC 9110, section 15.5.16)."""
    refused = await bench.ask(b"{}", "application/json", Content_Encoding=coding)
    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media_type")
    assert refused.headers["accept-encoding"] == "zstd, br, gzip, deflate"
    for path in ("predict", "invocations"):
        of_type = await bench.client.post(
            f"/models/m/{path}", content=b"{}", headers={"Content-Type": "text/plain"}
        )
        assert of_type.status_code == 415
        assert "application/json" in of_type.headers["accept"]


@pytest.mark.parametrize("coding", CODINGS)
async def test_the_limit_is_of_what_comes_out(bench: Bench, coding: str) -> None:
    """413 for a few bytes that would become many."""
    content = packed(coding, b" " * 50_000_000)
    assert len(content) < 100_000
    name = coding.removeprefix("raw ")
    refused = await bench.ask(content, "application/json", Content_Encoding=name)
    assert (refused.status_code, refused.json()["code"]) == (413, "payload_too_large")


@pytest.mark.parametrize(
    ("wanted", "coding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("br", "br"),
        ("zstd, br, gzip", "zstd"),
        ("gzip;q=1.0, zstd;q=0.1", "gzip"),
        ("*", "zstd"),
        ("identity", None),
        ("gzip;q=0", None),
        ("x-gzip", "gzip"),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.5, gzip;q=0.5", "gzip"),
        ("identity;q=0, br", "br"),
        ("compress", None),
    ],
)
async def test_a_large_answer_is_compressed_where_asked(
    bench: Bench, wanted: str, coding: str | None
) -> None:
    """In the coding that the caller prefers; a small one never."""
    body = orjson.dumps(RECORDS * 50)
    plain = await bench.ask(body, "application/json")
    assert "content-encoding" not in plain.headers
    request = bench.client.build_request(
        "POST",
        "/models/m/predict",
        content=body,
        headers={"Content-Type": "application/json", "Accept-Encoding": wanted},
    )
    answer = await bench.client.send(request, stream=True)
    raw = b"".join([piece async for piece in answer.aiter_raw()])
    assert answer.headers.get("content-encoding") == coding
    assert int(answer.headers["content-length"]) == len(raw)
    assert (len(raw) < len(plain.content) / 2) == (coding is not None)
    if coding in ("gzip", "deflate"):
        unpacked = gzip.decompress(raw) if coding == "gzip" else zlib.decompress(raw)
        assert unpacked == plain.content
    small = await bench.ask(orjson.dumps(RECORDS[:1]), "application/json", Accept_Encoding=wanted)
    assert "content-encoding" not in small.headers


async def test_what_doesn_t_become_smaller_is_sent_as_it_is() -> None:
    """Numbers by chance cost time and save nothing."""
    bench = Bench(signature(("x", "double"), outputs=(("x", "double"),)))
    noise = np.frombuffer(np.random.default_rng(7).bytes(8_000), "<i8").astype(float)
    async with bench.client:
        body = written(pa.table({"x": noise}), STREAM)
        answer = await bench.ask(body, STREAM, Accept=STREAM, Accept_Encoding="gzip")
        assert answer.status_code == 200, answer.text
        assert "content-encoding" not in answer.headers
