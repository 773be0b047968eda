"""Comparing what two versions answer, over versions that are functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet
import pytest

from deployments.cli import behaviour as module
from deployments.cli.behaviour import Behaviour
from deployments.cli.local_versions import LocalVersions
from deployments.settings import Settings
from gateway.capture.files import LocalFolder
from gateway.capture.replay import NotReplayable, Question, questions_of
from gateway.catalog import ModelVersion, contract_of
from gateway.contract import Frame, Output, Outputs, Request
from gateway.errors import ModelFailed
from registry_sync.contract_check import CannotTell
from tests.support.captured import Captured
from tests.support.catalogs import PLAIN, signature, version

Answer = Callable[[np.ndarray], np.ndarray]


class Functions:
    """Versions by their numbers, each a function of the column `x`."""

    def __init__(self, **answers: Answer) -> None:
        self._answers = {int(name[1:]): answer for name, answer in answers.items()}

    async def ask(self, version: ModelVersion, request: Request) -> Outputs:
        answer = self._answers[version.number]
        return [(places, _output(answer, frame)) for places, frame in request.frames]


def _output(answer: Answer, frame: Frame) -> Output:
    return ("columns", ["y"], [answer(np.asarray(frame.columns[0]))])


def _fails_at_13(x: np.ndarray) -> np.ndarray:
    if 13 in x:
        raise ModelFailed("The model failed.")
    return x


async def compared(
    values: list[Any], *, tolerance: float | None = None, **answers: Answer
) -> Behaviour:
    contract = contract_of(PLAIN)
    seen = Behaviour(on="test", tolerance=tolerance or 1e-6)
    comparison = module._Comparison(seen, contract, version(1), version(2), tolerance)
    questions = [Question(value={"x": x}, params={}, told=f"row {i}") for i, x in enumerate(values)]
    for together in module._together(contract, questions):
        await comparison.ask(cast(LocalVersions, Functions(**answers)), together)
    return seen


async def test_rows_that_differ_are_counted_and_the_worst_shown() -> None:
    """How many, by how much, and which was asked what."""
    seen = await compared([1.0, 2.0, 3.0, 4.0], v1=lambda x: x, v2=lambda x: x + (x > 2) * x)
    assert (seen.compared, seen.different, seen.ratio) == (4, 2, 0.5)
    (column,) = (each.as_dict() for each in seen.columns.values())
    assert (column["column"], column["different"], column["max"]) == ("y", 2, 4.0)
    assert {row.told for row in seen.worst} == {"row 2", "row 3"}
    assert seen.worst[0].answers["y"] in ((3.0, 6.0), (4.0, 8.0))


async def test_a_tolerance_is_relative() -> None:
    """What is within it is equal."""
    near = await compared([1.0, 100.0], tolerance=0.01, v1=lambda x: x, v2=lambda x: x * 1.005)
    far = await compared([1.0, 100.0], tolerance=0.001, v1=lambda x: x, v2=lambda x: x * 1.005)
    assert (near.different, far.different) == (0, 2)


async def test_nan_equals_nan() -> None:
    """A model that knows no answer hasn't changed its mind."""
    seen = await compared([1.0], v1=lambda x: x * np.nan, v2=lambda x: x * np.nan)
    assert (seen.compared, seen.different) == (1, 0)


async def test_what_the_candidate_fails_on_differs() -> None:
    """Only the row that it fails on, and it is named with its error."""
    seen = await compared([1.0, 13.0, 2.0], v1=lambda x: x, v2=_fails_at_13)
    assert (seen.compared, seen.different, seen.failures) == (3, 1, {"model_failed": 1})
    assert [(row.told, row.error) for row in seen.worst] == [("row 1", "model_failed")]


async def test_what_the_other_version_does_not_answer_is_not_compared() -> None:
    """Neither what it fails on nor what doesn't fit the contract."""
    seen = await compared([1.0, 13.0, "no"], v1=_fails_at_13, v2=lambda x: x)
    assert (seen.compared, seen.unanswered, seen.refused, seen.different) == (1, 1, 1, 0)


def test_lines_are_bodies_of_predictions(tmp_path: Path) -> None:
    """One input, a list of them, or both with params."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"x": 1}\n\n[{"x": 2}, {"x": 3}]\n{"inputs": [{"x": 4}]}\n')
    found = list(module._of_lines(contract_of(PLAIN), path))
    assert [each.value for each in found] == [{"x": 1}, {"x": 2}, {"x": 3}, {"x": 4}]
    path.write_text('{"z": 1}\n')
    with pytest.raises(NotReplayable, match=r"rows\.jsonl line 1"):
        list(module._of_lines(contract_of(PLAIN), path))


def test_a_table_has_its_inputs_by_their_names(tmp_path: Path) -> None:
    """A file of one's own is asked row by row; one that lacks an input is refused."""
    path = tmp_path / "rows.parquet"
    pa.parquet.write_table(pa.table({"x": [1.0, 2.0], "other": ["a", "b"]}), path)
    found = list(module._of_file(contract_of(PLAIN), path))
    assert [each.value for each in found] == [{"x": 1.0}, {"x": 2.0}]
    pa.parquet.write_table(pa.table({"other": ["a"]}), path)
    with pytest.raises(NotReplayable, match="no column x"):
        list(module._of_file(contract_of(PLAIN), path))


async def test_what_was_captured_is_asked_as_it_was(tmp_path: Path) -> None:
    """Types, nulls, params and all: a captured request means the same when it is asked again."""
    text = signature(
        ("x", "double"), ("n", "long", False), ("at", "datetime", False),
        ("blob", "binary", False), ("tags", "string", False),
        params=({"name": "k", "type": "long", "default": 1, "shape": None},),
    )  # fmt: skip
    captured = Captured(
        tmp_path, text, lambda call: ("columns", ["y"], [np.asarray(call.frame.columns[0])])
    )
    rows = [
        {"x": 1.5, "n": 7, "at": "2026-01-02T03:04:05.123456", "blob": "YWI=", "tags": "é"},
        {"x": 2.0},
    ]
    assert (await captured.ask({"inputs": rows, "params": {"k": 3}})).status_code == 200
    assert (await captured.ask({"x": "no"})).status_code == 422
    contract = contract_of(text)
    found = list(questions_of(await captured.table(), contract, source="file"))
    assert [each.params for each in found] == [{"k": 3}, {"k": 3}]
    body = orjson.dumps({"inputs": [each.value for each in found]})
    again, was = contract.parse(body), contract.parse(orjson.dumps({"inputs": rows}))
    for (_, frame), (_, before) in zip(again.frames, was.frames, strict=True):
        assert frame.names == before.names
        for column, expected in zip(frame.columns, before.columns, strict=True):
            np.testing.assert_array_equal(column, expected)


def _capture(folder: Path, day: str, **columns: list[Any]) -> Path:
    """A file as the gateway writes one."""
    rows = len(next(iter(columns.values())))
    path = folder / "m" / day / "120000-a-000001.parquet"
    path.parent.mkdir(parents=True)
    facts: dict[str, list[Any]] = {
        "request_id": ["r"] * rows, "row": [*range(rows)], "status": [200] * rows,
    }  # fmt: skip
    pa.parquet.write_table(pa.table({**facts, **columns}), path)
    return path


def _asked(folder: Path) -> list[Any]:
    settings = Settings(tracking_uri="sqlite:///none.db", capture_url=str(folder))
    found = module._captured(settings, "m", contract_of(PLAIN))
    return [each.value for each in found]


def test_what_a_version_of_another_signature_was_asked_is_left_out(tmp_path: Path) -> None:
    """Each file is of one version: those that lack an input say nothing about this contract, and
    where there is no other it is said."""
    _capture(tmp_path, "2026-11-30", **{"input.length": [7.0]})
    with pytest.raises(NotReplayable, match=r"input\.x"):
        _asked(tmp_path)
    _capture(tmp_path, "2026-11-29", **{"input.x": [1.0, 2.0]})
    assert _asked(tmp_path) == [{"x": 1.0}, {"x": 2.0}]


def test_captured_files_may_go_while_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is gone is as none; one that is no Parquet is told."""
    _capture(tmp_path, "2026-11-29", **{"input.x": [1.0]})
    newer = _capture(tmp_path, "2026-11-30", **{"input.x": [2.0]})
    listed = LocalFolder.files_of

    def listed_late(folder: LocalFolder, model: str) -> list[str]:
        found = listed(folder, model)
        newer.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(LocalFolder, "files_of", listed_late)
    assert _asked(tmp_path) == [{"x": 1.0}]
    monkeypatch.undo()
    newer.write_bytes(b"no Parquet")
    with pytest.raises(CannotTell, match="can't be read"):
        _asked(tmp_path)
