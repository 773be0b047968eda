"""What is kept of requests, from HTTP to Parquet files."""

from __future__ import annotations

import asyncio
import errno
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pytest
from mlflow.types.llm import CHAT_MODEL_INPUT_SCHEMA

from gateway.capture.files import CaptureUnusable, LocalFolder, RemoteFolder, folder_of, store_at
from gateway.capture.journal import CaptureLimits
from gateway.catalog import UNTYPED_SIGNATURE, ModelOptions
from gateway.contract import Output
from gateway.contract.agents import CHAT_MODEL
from gateway.errors import ModelFailed
from gateway.ports import Call
from tests.support.captured import Captured
from tests.support.catalogs import signature
from tests.support.processes import poll

TYPES = signature(
    ("x", "double"),
    ("count", "long", False),
    ("name", "string", False),
    ("when", "datetime", False),
    ("blob", "binary", False),
    outputs=(("x", "double"), ("label", "string")),
    params=({"name": "factor", "type": "double", "default": 1.0, "shape": None},),
)


def files_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.parquet"))


def doubled(call: Call) -> Output:
    x = np.asarray(call.frame.columns[0], np.float64)
    return ("columns", ["x", "label"], [x * 2, [f"l{value:g}" for value in x]])


async def test_rows_have_typed_columns_by_the_signature(tmp_path: Path) -> None:
    """An input and an output of one name are two columns, and each has the type of its own."""
    captured = Captured(tmp_path, TYPES, doubled)
    row = {"x": 1.5, "count": 3, "name": "é", "when": "2026-01-02T03:04:05", "blob": "YWI="}
    answer = await captured.ask(
        {"inputs": [row, {"x": 2.0}], "params": {"factor": 2.5}},
        x_correlation_id="order 7", x_request_id="r1", x_model_version="latest",
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    table = await captured.table()
    first, second = table.to_pylist()
    told = {"request_id": "r1", "correlation_id": "order 7", "asked": "latest", "version": 1,
            "model": "m", "status": 200, "error": None, "param.factor": 2.5}  # fmt: skip
    assert {name: first[name] for name in told} == told
    assert first["input.x"] == 1.5
    assert first["output.x"] == 3.0
    assert first["output.label"] == "l1.5"
    assert first["input.when"] == pd.Timestamp("2026-01-02T03:04:05")
    assert (first["input.count"], first["input.name"], first["input.blob"]) == (3, "é", b"ab")
    assert [second[f"input.{n}"] for n in ("count", "name", "when", "blob")] == [None] * 4
    assert (first["row"], second["row"]) == (0, 1)
    assert (datetime.now(UTC) - first["time"]).total_seconds() < 600
    assert table.schema.field("input.count").type == pa.int64()


async def test_pandas_reads_a_model_s_folder(tmp_path: Path) -> None:
    """Days are folders and files whole: `read_parquet` of the model's folder has all rows."""
    captured = Captured(tmp_path, TYPES, doubled)
    for x in range(5):
        await captured.ask({"x": float(x)})
    await captured.end()
    frame = pd.read_parquet(tmp_path / "m")
    assert sorted(frame["input.x"]) == [0.0, 1.0, 2.0, 3.0, 4.0]
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    assert day in {path.parent.name for path in files_in(tmp_path)}


async def test_errors_are_kept_too(tmp_path: Path) -> None:
    """What couldn't be read has no inputs; what the model failed on has them; each has its code."""

    def failing(call: Call) -> Output:
        raise ModelFailed("The model failed.")

    captured = Captured(tmp_path, TYPES, failing)
    assert (await captured.ask({"x": "no"})).status_code == 422
    assert (await captured.ask([{"x": 1.0}, {"x": 2.0}])).status_code == 500
    table = await captured.table()
    kept = [(r["status"], r["error"], r["row"], r["input.x"], r["output.x"])
            for r in table.to_pylist()]  # fmt: skip
    assert sorted(kept, key=str) == [
        (422, "invalid_input", None, None, None),
        (500, "model_failed", 0, 1.0, None),
        (500, "model_failed", 1, 2.0, None),
    ]


@pytest.mark.parametrize("drop", ["name", "input.name"])
async def test_columns_that_are_to_be_left_out_are_in_no_file(tmp_path: Path, drop: str) -> None:
    """`capture_drop` leaves no trace of a column, by its own name or by that in the file."""
    options = ModelOptions.model_validate({"capture": "100%", "capture_drop": f"{drop}, output"})
    captured = Captured(tmp_path, TYPES, doubled, options=options)
    await captured.ask({"x": 1.0, "name": "secret name"})
    table = await captured.table()
    assert "input.name" not in table.column_names
    assert not any(name.startswith("output") for name in table.column_names)
    assert b"secret name" not in b"".join(p.read_bytes() for p in files_in(tmp_path))


async def test_nothing_is_kept_without_the_tag(tmp_path: Path) -> None:
    """A model that isn't tagged has no folder, whatever another one has."""
    captured = Captured(tmp_path, TYPES, doubled, options=ModelOptions())
    await captured.ask({"x": 1.0})
    await captured.end()
    assert files_in(tmp_path) == []
    assert captured.outcomes() == {}


async def test_a_percentage_is_about_that_many(tmp_path: Path) -> None:
    """Of many requests about the tagged share is kept."""
    captured = Captured(tmp_path, TYPES, doubled, options=ModelOptions(capture=20.0))
    for _ in range(300):
        await captured.ask({"x": 1.0})
    await captured.end()
    assert 20 <= captured.outcomes()["written"] <= 110


async def test_untyped_models_are_json_text(tmp_path: Path) -> None:
    """Where nobody says what a model takes and gives both are JSON, without what is left out."""
    options = ModelOptions(capture=100.0, capture_drop=("email",))
    captured = Captured(
        tmp_path, UNTYPED_SIGNATURE, lambda call: ("values", [{"y": 1, "email": "e"}, [2]]),
        options=options, unsigned="none",
    )  # fmt: skip
    await captured.ask([{"a": 1, "email": "who"}, {"a": [2]}])
    rows = (await captured.table()).to_pylist()
    assert [orjson.loads(row["input"]) for row in rows] == [{"a": 1}, {"a": [2]}]
    assert [orjson.loads(row["output"]) for row in rows] == [{"y": 1}, [2]]


async def test_a_table_where_anything_is_declared_is_json_text(tmp_path: Path) -> None:
    """What a type-hinted model has as a table is kept as the records that its caller got."""
    text = orjson.loads(signature(("x", "double")))
    text["outputs"] = '[{"type": "any", "required": true}]'
    table: Output = ("columns", ["y", "z"], [[1, 2], ["a", "b"]])
    captured = Captured(tmp_path, orjson.dumps(text).decode(), lambda call: table)
    answer = await captured.ask([{"x": 1.0}, {"x": 2.0}])
    rows = (await captured.table()).to_pylist()
    assert [orjson.loads(row["output"]) for row in rows] == answer.json()


CHAT = {"inputs": CHAT_MODEL_INPUT_SCHEMA.to_json(), "task": CHAT_MODEL}
SAID = {"role": "assistant", "content": "hello"}
HELLO = {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0.5}


async def test_agents_and_streams_are_kept(tmp_path: Path) -> None:
    """Objects are JSON text, values typed, and what was streamed is a list of its events."""
    captured = Captured(
        tmp_path, orjson.dumps(CHAT).decode(), lambda call: ("values", [SAID]),
        task=CHAT_MODEL, streamable=True,
    )  # fmt: skip
    whole = await captured.ask(HELLO)
    streamed = await captured.ask(HELLO, accept="text/event-stream")
    spoken = await captured.client.post("/v1/chat/completions", json={**HELLO, "model": "m"})
    assert [r.status_code for r in (whole, streamed, spoken)] == [200, 200, 200], spoken.text
    rows = (await captured.table()).to_pylist()
    assert [row["protocol"] for row in rows] == ["modelmux", "modelmux", "openai"]
    for row in rows:
        assert orjson.loads(row["input.messages"]) == HELLO["messages"]
        assert row["input.temperature"] == 0.5
    assert orjson.loads(rows[0]["output"]) == orjson.loads(rows[2]["output"]) == SAID
    assert (rows[1]["output"], orjson.loads(rows[1]["events"])) == (None, [SAID])
    assert rows[0]["events"] is None


async def test_an_answer_that_is_longer_has_rows_of_its_own(tmp_path: Path) -> None:
    """Nothing of an answer is lost where a model gives more rows than it got."""
    captured = Captured(
        tmp_path, signature(("x", "double"), outputs=()), lambda call: ("values", [1.0, 2.0, 3.0])
    )
    assert (await captured.ask({"x": 7.0})).status_code == 200
    rows = (await captured.table()).to_pylist()
    assert [(row["row"], row["input.x"], row["output"]) for row in rows] == [
        (0, 7.0, "1.0"), (1, None, "2.0"), (2, None, "3.0"),
    ]  # fmt: skip


async def test_many_requests_that_travel_alike_become_one_file(tmp_path: Path) -> None:
    """Files are of many requests, and of one row group or few."""
    captured = Captured(tmp_path, TYPES, doubled)
    for x in range(50):
        await captured.ask([{"x": float(x)}, {"x": float(x), "name": None}])
    await captured.end()
    (path,) = files_in(tmp_path)
    assert pa.parquet.ParquetFile(path).metadata.num_rows == 100
    assert captured.outcomes() == {"written": 50}


class Full:
    """A store that takes nothing."""

    def put(self, path: str, data: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def files_of(self, model: str) -> list[str]:
        return []

    def open(self, path: str) -> Any:
        raise FileNotFoundError(path)


async def test_a_full_disk_fails_no_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests are answered, what is lost is counted, and said once."""
    captured = Captured(
        tmp_path, TYPES, doubled, store=Full(), limits=CaptureLimits(file_age_s=0.01)
    )
    for _ in range(20):
        assert (await captured.ask({"x": 1.0})).status_code == 200
    await captured.end()
    assert captured.outcomes() == {"lost": 20}
    assert len([r for r in caplog.records if "can't be written" in r.message]) == 1
    assert "No space left" in caplog.text


async def test_what_there_is_no_room_for_is_dropped(tmp_path: Path) -> None:
    """A bounded buffer drops, counts, and never waits."""
    captured = Captured(tmp_path, TYPES, doubled, limits=CaptureLimits(buffer_bytes=1))
    for _ in range(5):
        assert (await captured.ask({"x": 1.0})).status_code == 200
    await captured.end()
    assert captured.outcomes() == {"dropped": 5}


async def test_one_request_that_fits_no_file_takes_no_other_with_it(tmp_path: Path) -> None:
    """Where an answer can't be a column its request alone is lost."""

    def odd(call: Call) -> Output:
        x = float(call.frame.columns[0][0])
        return ("columns", ["x", "label"], [np.array([x]), ["\ud800" if x == 2 else "fine"]])

    captured = Captured(tmp_path, TYPES, odd)
    for x in (1.0, 2.0, 3.0):
        await captured.ask({"x": x})
    table = await captured.table()
    kept = [row["input.x"] for row in table.to_pylist() if row["status"] == 200]
    assert set(kept) >= {1.0, 3.0}


async def test_files_are_written_when_they_are_old_enough(tmp_path: Path) -> None:
    """A quiet model's rows aren't kept in memory for longer than is set."""
    captured = Captured(tmp_path, TYPES, doubled, limits=CaptureLimits(file_age_s=0.05))
    await captured.ask({"x": 1.0})
    await asyncio.to_thread(poll, lambda: captured.outcomes().get("written") == 1, timeout_s=60)
    assert len(files_in(tmp_path)) == 1
    await captured.end()


async def test_a_url_is_written_by_fsspec(tmp_path: Path) -> None:
    """What another file system has is what a folder would have."""
    url = f"memory://{tmp_path.name}/captured"
    captured = Captured(tmp_path, TYPES, doubled, store=store_at(url))
    await captured.ask({"x": 1.0})
    await captured.end()
    files = fsspec.filesystem("memory").glob(f"/{tmp_path.name}/captured/m/*/*.parquet")
    assert len(files) == 1
    store = RemoteFolder(url)
    (path,) = store.files_of("m")
    with store.open(path) as file:
        assert pa.parquet.read_table(file).num_rows == 1


def test_a_scheme_that_nothing_writes_to_is_refused() -> None:
    """A URL that can't work is told when the gateway starts."""
    with pytest.raises(CaptureUnusable, match="nosuchscheme"):
        store_at("nosuchscheme://bucket/folder")


@pytest.mark.parametrize("name", ["..", ".hidden", "a b/c%", "模" * 250, "n" * 256])
def test_any_model_s_name_is_a_folder_of_its_own(tmp_path: Path, name: str) -> None:
    """Names lead nowhere else, and long ones fit."""
    store = LocalFolder(tmp_path)
    store.put(f"{folder_of(name)}/2026-01-01/a.parquet", b"x")
    assert [p.parts[0] for p in (Path(each) for each in store.files_of(name))] == [folder_of(name)]
    assert {path.parent for path in tmp_path.iterdir()} == {tmp_path}
