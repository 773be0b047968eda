"""Reading MLmodel files and input examples."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from mlflow.models import ModelSignature
from mlflow.types.schema import Array, ColSpec, Schema

from gateway.catalog import contract_of
from registry_sync.mlmodel import read_example, read_mlmodel
from tests.support.catalogs import signature

MLMODEL = """
flavors:
  python_function:
    loader_module: mlflow.sklearn
  sklearn:
    code: {code}
saved_input_example_info:
  serving_input_path: serving_input_example.json
signature:
  inputs: '[{{"type": "double", "name": "x", "required": true}}]'
  outputs: '[{{"type": "tensor", "tensor-spec": {{"dtype": "float64", "shape": [-1]}}}}]'
  params: null
"""


def test_the_facts_of_a_file_are_read() -> None:
    """Signature, flavor and the example's path come out; nothing is wrong with the version."""
    facts = read_mlmodel(MLMODEL.format(code="null"))
    assert (facts.problem, facts.flavor, facts.ships_code) == (None, "mlflow.sklearn", False)
    assert facts.example_path == "serving_input_example.json"
    assert "inputs" in orjson.loads(facts.signature or "")


def test_code_is_noticed_in_any_flavor() -> None:
    """A version that ships code must be told from one that doesn't before it is loaded."""
    assert read_mlmodel(MLMODEL.format(code="code")).ships_code


def test_an_example_without_a_signature_is_not_told_to_be_logged() -> None:
    """Who logged one hears that MLflow made no signature of it; who didn't, that it would."""
    without = "flavors: {python_function: {}}"
    alone, empty = read_mlmodel(without), read_mlmodel(f"{without}\nsignature: {{inputs: null}}")
    assert "input_example=" in str(alone.problem)
    assert alone.problem == empty.problem
    logged = read_mlmodel(f"{without}\nsaved_input_example_info: {{artifact_path: input.json}}")
    assert "has an input example but no signature" in str(logged.problem)
    assert "input_example=" not in str(logged.problem)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "broken"),
        ("{", "broken"),
        ("a: [", "broken"),
        ("just text", "broken"),
        ("flavors: 3", "broken"),
        ("flavors: {sklearn: {}}", "python_function"),
        ("flavors: {python_function: {}}", "signature"),
        ('flavors: {python_function: {}}\nsignature: {inputs: \'[{"type": "nope"}]\'}', ""),
        ("flavors: {python_function: {}}\nsignature: {inputs: 'no json'}", ""),
        ("flavors: {python_function: {}}\nsignature: {inputs: 3}", ""),
        ("flavors: {python_function: {}}\nsignature: {inputs: {1: 2}}", ""),
        ("flavors: {python_function: {}}\nsignature: {inputs: !!set {a}}", ""),
        (
            "flavors: {python_function: {loader_module: [1]}}\nsignature: {inputs: 1"
            + "0" * 400
            + "}",
            "",
        ),
        ("flavors: " + "[" * 5000 + "]" * 5000, "broken"),
        ("flavors: " + "- " * 200_000, "broken"),
        ("[" * 200_000 + "]" * 200_000, "broken"),
    ],
)
def test_a_file_that_cannot_be_served_says_why(text: str, word: str) -> None:
    """Whatever stands in the file, reading it yields a reason and never fails."""
    problem = read_mlmodel(text).problem
    assert problem
    assert word in problem


@pytest.mark.parametrize(
    ("example", "body"),
    [
        ({"dataframe_split": {"columns": ["x"], "data": [[1.5]]}}, {"x": 1.5}),
        (
            {"dataframe_split": {"columns": ["x"], "data": [[1.5], [2.5]]}},
            [{"x": 1.5}, {"x": 2.5}],
        ),
        ({"dataframe_records": [{"x": 1.5}]}, {"x": 1.5}),
        ({"inputs": {"x": [1.5, 2.5]}}, [{"x": 1.5}, {"x": 2.5}]),
        ({"x": 1.5}, {"x": 1.5}),
        ({"dataframe_split": {"columns": ["other"], "data": [[1.5]]}}, None),
        ({"dataframe_split": {"columns": ["x", "y"], "data": [[1.5]]}}, None),
        ({"dataframe_split": 3}, None),
        (7, None),
    ],
)
def test_an_example_is_a_body_that_the_contract_accepts_or_none(example: Any, body: Any) -> None:
    """MLflow's serving forms become records; what doesn't fit the signature is dropped."""
    assert read_example(orjson.dumps(example).decode(), signature(("x", "double"))) == body


@pytest.mark.parametrize(
    ("rows", "body"),
    [
        ("[[1.5, NaN]]", {"x": 1.5, "y": None}),
        ("[[1.5, NaN], [NaN, 2.5], [3.5, 4.5]]", {"x": 1.5, "y": None}),
        ("[[NaN, 1.5], [2.5, 3.5]]", {"x": 2.5, "y": 3.5}),
        ("[[Infinity, 1.5], [2.5, 3.5]]", {"x": 2.5, "y": 3.5}),
        ("[[NaN, NaN]]", None),
    ],
)
def test_a_gap_in_an_example_is_null_where_there_may_be_one(rows: str, body: Any) -> None:
    """MLflow writes a gap as a bare NaN; rows that nobody could send are passed over."""
    example = f'{{"dataframe_split": {{"columns": ["x", "y"], "data": {rows}}}}}'
    assert read_example(example, signature(("x", "double"), ("y", "double", False))) == body


def test_an_example_of_lists_is_one_record_where_the_signature_has_lists() -> None:
    """A dict of lists has columns, or one row's lists."""
    text = orjson.dumps({"inputs": {"labels": ["a", "b"], "scores": [0.5]}}).decode()
    lists = Schema([ColSpec(Array("string"), "labels"), ColSpec(Array("double"), "scores")])
    declared = orjson.dumps(ModelSignature(lists).to_dict()).decode()
    assert read_example(text, declared) == {"labels": ["a", "b"], "scores": [0.5]}


def test_bytes_of_an_example_come_in_lines() -> None:
    """MLflow writes bytes as base64 with a line's end after each 76 characters."""
    written = base64.encodebytes(b"a" * 100).decode()
    text = orjson.dumps({"dataframe_records": [{"x": written}]}).decode()
    assert read_example(text, signature(("x", "binary"))) == {"x": written}


@pytest.mark.parametrize(
    ("flavor", "hint", "example", "dicts"),
    [
        ("mlflow.langchain", "false", "json_object", True),
        ("mlflow.pyfunc.model", "true", "json_object", True),
        ("mlflow.pyfunc.model", "true", "dataframe", False),
        ("mlflow.pyfunc.model", "false", "json_object", False),
        ("mlflow.sklearn", "false", "dataframe", False),
    ],
)
def test_it_is_known_where_mlflow_makes_a_dict_of_each_row(
    flavor: str, hint: str, example: str, dicts: bool
) -> None:
    """By the flavor, or for a model that takes what its input example is, which is no table."""
    text = f"""
flavors: {{python_function: {{loader_module: {flavor}}}}}
saved_input_example_info: {{type: {example}}}
signature: {{inputs: '[{{"type": "double", "name": "x", "required": true}}]'}}
type_hint_from_example: {hint}
"""
    assert contract_of(read_mlmodel(text).signature or "").rows_are_dicts is dicts
